//go:build lab

package lab

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// complaints are what failed suites had to say, for the end of all that is
// printed: what the suites print, they print at once.
var complaints struct {
	sync.Mutex
	of []string
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, c := range complaints.of {
		fmt.Print(c)
	}
	os.Exit(code)
}

// lines prints whole lines to the standard output, each after a word, and keeps
// those of the first test that failed, or of the last one.
type lines struct {
	before string
	rest   []byte // of a line that has not ended
	last   []string
	full   bool // last is of a test that failed
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		l.print(string(l.rest[:i]))
		l.rest = l.rest[i+1:]
	}
}

func (l *lines) print(line string) {
	fmt.Printf("%s%s\n", l.before, line)
	l.keep(line)
}

// keep keeps a line that is of the first test that failed, or may be.
func (l *lines) keep(line string) {
	if strings.HasPrefix(line, "=== RUN ") && !strings.Contains(line, "/") {
		if l.full = l.full || failed(l.last); !l.full {
			l.last = nil
		}
	}
	if !l.full {
		l.last = append(l.last, line)
	}
}

// Flush prints a line that has not ended.
func (l *lines) Flush() {
	if len(l.rest) > 0 {
		l.print(string(l.rest))
		l.rest = nil
	}
}

// complain keeps what the first test that failed said, for the end.
func (l *lines) complain() {
	complaints.Lock()
	defer complaints.Unlock()
	for _, line := range brief(l.last) {
		complaints.of = append(complaints.of, l.before+line+"\n")
	}
}

func failed(lines []string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "--- FAIL") })
}

// said begins what a test logs.
var said = regexp.MustCompile(`^\s+\w+\.go:\d+: `)

// brief returns the first lines of each of the last things that a test said, but
// for the logs that it shows, and its result.
func brief(lines []string) (text []string) {
	const entries, each = 6, 4
	var all [][]string
	in := false
	for _, l := range lines {
		switch {
		case said.MatchString(l):
			if in = !strings.HasSuffix(l, " ends:"); in {
				all = append(all, []string{l})
			}
		case strings.HasPrefix(l, "=== "):
			in = false
		case strings.Contains(l, "--- FAIL"), strings.HasPrefix(l, "panic:"):
			text, in = append(text, l), false
		case in && len(all[len(all)-1]) < each:
			all[len(all)-1] = append(all[len(all)-1], l)
		}
	}
	for _, e := range all[max(0, len(all)-entries):] {
		text = append(text, e...)
	}
	return text
}

// What a failed test said is found in all that its suite printed.
func TestBrief(t *testing.T) {
	const out = `=== RUN   TestOther
    a_test.go:1: never
--- PASS: TestOther (0.01s)
=== RUN   TestWarm
    warm_test.go:65: a template after 3s
=== RUN   TestWarm/keeps
    warm_soak_test.go:102: round 0: exit 1
        one
        two
        three
        four
=== NAME  TestWarm
    harness_test.go:180: daemon.log ends:
        time=12
    harness_test.go:140: left on the host: tap
--- FAIL: TestWarm (1.00s)
    --- FAIL: TestWarm/keeps (0.50s)
=== RUN   TestAfter
    after_test.go:1: never
--- PASS: TestAfter (0.01s)
FAIL
`
	l := &lines{}
	for line := range strings.Lines(out) {
		l.keep(strings.TrimSuffix(line, "\n")) // printed, it would be taken for this run's
	}
	got := strings.Join(brief(l.last), "\n")
	want := `--- FAIL: TestWarm (1.00s)
    --- FAIL: TestWarm/keeps (0.50s)
    warm_test.go:65: a template after 3s
    warm_soak_test.go:102: round 0: exit 1
        one
        two
        three
    harness_test.go:140: left on the host: tap`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
