package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestTable(t *testing.T) {
	tab := &table{head: []string{"NAME", "STATE", "WHY"}, color: stateColor}
	tab.add("web", "running", "")
	tab.add("a-long-name", "stopped", "it\x1b[2J said\nso")
	want := "NAME         STATE    WHY\n" +
		"web          running\n" +
		"a-long-name  stopped  it\uFFFD[2J said so\n"
	if got := tab.text(0, "", false); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
	if got := tab.text(0, "", true); !strings.Contains(got, "\x1b[32mrunning\x1b[0m\n") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("colored: %q", got)
	}
}

// A table fits its terminal: the last column gives way first, then the widest.
func TestTableFits(t *testing.T) {
	long := strings.Repeat("n", 63)
	for _, tt := range []struct {
		width int
		want  string
	}{
		{0, long + "  running  some reason or other that is long"},
		{110, long + "  running  some reason or other that is long"},
		{100, long + "  running  some reason or other that…"},
		{80, strings.Repeat("n", 44) + "…  running  some reason or other th…"},
		{40, strings.Repeat("n", 13) + "…  running  some reason or…"},
		{12, "n…  ru…  so…"},
	} {
		tab := &table{head: []string{"NAME", "STATE", "REASON"}, color: stateColor}
		tab.add("web", "stopped", "")
		tab.add(long, "running", "some reason or other that is long")
		lines := strings.Split(tab.text(tt.width, "…", false), "\n")
		if lines[2] != tt.want {
			t.Errorf("width %d: %q, want %q", tt.width, lines[2], tt.want)
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); tt.width > 0 && n > tt.width {
				t.Errorf("width %d: %d columns in %q", tt.width, n, l)
			}
		}
	}
	tab := &table{head: []string{"A", "B"}}
	tab.add("x", "y")
	for width := range 8 {
		tab.text(width, "~", true) // as well as it can be done
	}
}

// What is completed is what there is.
func TestStates(t *testing.T) {
	var want []string
	for _, s := range vm.States() {
		want = append(want, string(s))
	}
	if !slices.Equal(vmStates, want) {
		t.Errorf("states %q, want %q", vmStates, want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "", 0: "", 1: "1", 1023: "1023", 1 << 10: "1K", 1536: "1.5K", 512 << 20: "512M", 16 << 30: "16G",
		1<<30 + 1<<29: "1536M", 1<<30 + 1: "1.0G", 5 << 40: "5T", 1<<63 - 1: "8388608.0T", 24105 << 20: "23.5G",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Minute: "1h",
		47 * time.Hour: "47h", 49 * time.Hour: "2d",
	} {
		if got := age(timestamppb.New(now.Add(-d)), now); got != want {
			t.Errorf("age of %s = %q, want %q", d, got, want)
		}
	}
	if got := age(nil, now); got != "" {
		t.Errorf("age of nothing = %q", got)
	}
}

func TestHint(t *testing.T) {
	tests := []struct {
		name, rootDir, env string
		hint, want         string
	}{
		{"banger", "", "", "banger vm list", "banger vm list"},
		{"/usr/bin/banger", "", "", "banger vm list", "/usr/bin/banger vm list"},
		{"bin/banger", "", "/r", "banger vm list", "bin/banger vm list"},
		{"banger", "", "/r", "sudo banger daemon start", "sudo banger --root /r daemon start"},
		{"banger", "/a b", "/r", "banger vm list", "banger --root '/a b' vm list"},
		{"./banger", "", "", "sudo banger daemon stop && sudo banger daemon start", "sudo banger daemon stop && sudo banger daemon start"},
		{"banger", "/r", "", "apt-get install -y qemu", "apt-get install -y qemu"},
		{"banger", "/r", "", "bangerd --root x", "bangerd --root x"},
	}
	for _, tt := range tests {
		a := &app{env: Env{Name: tt.name, Vars: []string{"BANGER_ROOT=" + tt.env}}, rootDir: tt.rootDir}
		if got := a.hint(tt.hint); got != tt.want {
			t.Errorf("%s: hint %q = %q, want %q", tt.name, tt.hint, got, tt.want)
		}
	}
}

// Nothing that a guest wrote moves a cursor.
func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2Jb\r\nc\td\x9b31m\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if unicode.IsControl(r) && r != '\n' {
				t.Errorf("%q is left in %q", r, s)
			}
		}
		if n := strings.Count(clean(s), "\n"); n != strings.Count(s, "\n") {
			t.Errorf("%q has %d lines", s, n)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"create", "delete", "exec", "kill", "list", "logs", "run", "show", "start", "stop"}
	for typed, want := range map[string]string{"rnu": "run", "strat": "start", "lst": "list", "xyzzy": "", "": "", "lgos": "logs", "remove": ""} {
		if got := nearest(typed, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", typed, got, want)
		}
	}
}

// A line never gets wider than its terminal, whatever the daemon says.
func TestProgressLine(t *testing.T) {
	now := time.Now()
	p := &progress{since: now.Add(-12 * time.Second), current: &api.Progress{Stage: "build image debian-bookworm", Detail: strings.Repeat("unpacking ", 20), Done: 42, Total: 100}}
	if got, want := p.line(now, 79), "| build image debian-bookworm  unpacking unpack  ########------------  42%  12s"; got != want {
		t.Errorf("line %q, want %q", got, want)
	}
	p.utf8 = true
	for width := range 100 {
		for _, u := range []*api.Progress{p.current, {Stage: "boot web"}, {Stage: "x", Done: -5, Total: 1}, {Stage: "x", Done: 1 << 62, Total: 3}} {
			q := &progress{since: p.since, current: u, utf8: true}
			if n := len([]rune(q.line(now, width))); width > 40 && n > width {
				t.Errorf("%d columns in a terminal of %d", n, width)
			}
		}
	}
}

// Elsewhere than on a terminal each stage gets one line, once anything takes
// long enough.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Now()
	p := &progress{app: &app{Stdio: Stdio{Err: &out}}, began: now, told: make(map[string]bool)}
	tell := func(stage string) { p.begin(&api.Progress{Stage: stage}, dueLine{stage, p.began.Add(quietFor), false}) }
	tell("start the daemon")
	tell("boot web")
	if p.show(); out.Len() > 0 {
		t.Errorf("what is quick shows %q", out.String())
	}
	p.began = now.Add(-time.Hour)
	for i := range p.waiting {
		p.waiting[i].at = p.began
	}
	tell("boot web")
	tell("wait")
	p.begin(&api.Progress{Stage: "delete"}, dueLine{"delete", now.Add(time.Hour), true})
	p.idle()
	p.show()
	want := []string{"banger: start the daemon", "banger: boot web", "banger: wait"}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
}

func TestBeforeDashes(t *testing.T) {
	if got := beforeDashes([]string{"a", "--", "--json"}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}
