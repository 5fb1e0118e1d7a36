package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSessionLogs(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "a\n", "", "vm", "session", "start", "web", "--name", "a", "--", "x")
	f.want(0, "", "", "vm", "session", "logs", "web", "a")
	f.want(0, "{\n  \"logs\": []\n}\n", "", "vm", "session", "logs", "--json", "web", "a")
	f.write("a", "stdout", "one\ntwo\n")
	f.write("a", "stderr", "bad\xff\n")
	f.change(func() { f.sessions[0].write("stdout", "[5 bytes are missing]\n", true) })
	f.write("a", "stdout", "half")
	f.write("a", "stdout", " a line")
	f.write("a", "stderr", "end")
	f.want(0, "one\ntwo\n[5 bytes are missing]\nhalf a line", "", "vm", "session", "logs", "web", "a")
	f.want(0, "bad\xff\nend", "", "vm", "session", "logs", "--stream", "stderr", "web", "a")
	f.want(0, " a line", "", "vm", "session", "logs", "--tail", "1", "web", "a") // the fake's lines are its parts
	f.want(0, "one\ntwo\n[5 bytes are missing]\nhalf a line", "", "vm", "session", "logs", "--tail", "-5", "web", "a")
	f.want(0, "stdout | one\nstdout | two\nstderr | bad\xff\nstdout | [5 bytes are missing]\nstdout | half a line\nstderr | end", "",
		"vm", "session", "logs", "--stream", "both", "--all", "web", "a")
	f.want(0, "", "", "vm", "session", "logs", "--since", "0s", "web", "a")
	f.want(0, "bad\xff\nend", "", "vm", "session", "logs", "--stream", "stderr", "--since", "1h", "web", "a")
	f.want(0, "end", "", "vm", "session", "logs", "--stream", "stderr", "--since", f.now("a").parts[4].at.Format(time.RFC3339Nano), "web", "a")
	f.want(3, "", "banger: cannot print the log of session b in web: no session \"b\" in \"web\"\n", "vm", "session", "logs", "web", "b")
	_, out, _ := f.run("", "vm", "session", "logs", "--json", "--stream", "both", "web", "a")
	var doc struct{ Logs []map[string]any }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Logs) != 6 {
		t.Fatalf("%v: %s", err, out)
	}
	for i, want := range []string{
		"content:one\ntwo\n content_base64:<nil> mark:false offset:0 path:/s/stdout.log",
		"content:<nil> content_base64:YmFk/wo= mark:false offset:0 path:/s/stderr.log",
		"content:[5 bytes are missing]\n content_base64:<nil> mark:true offset:8 path:/s/stdout.log",
	} {
		if got := fmt.Sprint(doc.Logs[i]); !strings.HasPrefix(got, "map["+want) {
			t.Errorf("part %d is %s, want %s", i, got, want)
		}
	}
}

// A log is followed over the ends of daemons, with no byte missing or twice,
// until the session ends.
func TestSessionLogsFollow(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "a\n", "", "vm", "session", "start", "web", "--name", "a", "--", "x")
	f.write("a", "stdout", "0\n")
	plain := startProgram(t, f.program("vm", "session", "logs", "-f", "web", "a"))
	both := startProgram(t, f.program("vm", "session", "logs", "-f", "--json", "-q", "--stream", "both", "web", "a"))
	plain.wantLine("0")
	next := jsonLinesOf(both.out)
	if got := next(); got != "stdout 0 0\n" {
		t.Errorf("got %q", got)
	}
	for i := 1; i <= 3; i++ {
		f.wait("two read", func() bool { return f.calls == 2*i })
		f.kill()
		line := fmt.Sprintf("%d\n", i)
		f.write("a", "stdout", line)
		f.write("a", "stderr", line)
		f.serve()
		plain.wantLine(strings.TrimSpace(line))
		for _, want := range []string{"stdout " + fmt.Sprint(2*i), "stderr " + fmt.Sprint(2*i-2)} {
			if got := next(); got != want+" "+line {
				t.Errorf("got %q, want %q", got, want+" "+line)
			}
		}
	}
	f.end("a", 1)
	plain.wantEnd(0, "", "banger: warning: the daemon went away (")
	both.wantEnd(0, "", "")
	if both.errs.Len() > 0 {
		t.Errorf("-q said %s", both.errs.String())
	}
}

// jsonLinesOf returns a function that reads the next document.
func jsonLinesOf(r *bufio.Reader) func() string {
	return func() string {
		var p struct {
			Stream, Content string
			Offset          int64
		}
		line, err := r.ReadString('\n')
		if err == nil {
			err = json.Unmarshal([]byte(line), &p)
		}
		if err != nil && err != io.EOF {
			return err.Error()
		}
		return fmt.Sprintf("%s %d %s", p.Stream, p.Offset, p.Content)
	}
}

func TestSessionLogsInterrupted(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "a\n", "", "vm", "session", "start", "web", "--name", "a", "--", "x")
	f.write("a", "stdout", "0\n")
	r := startProgram(t, f.program("vm", "session", "logs", "-f", "web", "a"))
	r.wantLine("0")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(130, "", "")
	// Also while there is no daemon.
	r = startProgram(t, f.program("vm", "session", "logs", "-f", "--timeout", "2s", "web", "a"))
	r.wantLine("0")
	f.kill()
	r.wantEnd(124, "", "banger: cannot print the log of session a in web: not done within 2s\n")
}

// What had been seen already is left out, whatever comes again.
func TestSeen(t *testing.T) {
	s := make(seen)
	next := func(since seen, offset int64, data string) string {
		return string(s.next(since, "stdout", offset, []byte(data), false))
	}
	if got := next(nil, 5, "abc"); got != "abc" || s["stdout"] != 9 {
		t.Errorf("%q, %v", got, s)
	}
	since := seen{"stdout": 9}
	for _, tt := range []struct {
		offset     int64
		data, want string
		seen       int64
	}{
		{8, "def", "def", 12},
		{5, "abcdef", "def", 12},
		{0, "abc", "", 9},
		{20, "x", "x", 22},
	} {
		if got := next(since, tt.offset, tt.data); got != tt.want || s["stdout"] != tt.seen {
			t.Errorf("%q at %d: %q, %d, want %q, %d", tt.data, tt.offset, got, s["stdout"], tt.want, tt.seen)
		}
	}
	if got := s.next(since, "stdout", 0, []byte("mark"), true); string(got) != "mark" || s["stdout"] != 22 {
		t.Errorf("a mark: %q, %v", got, s)
	}
}
