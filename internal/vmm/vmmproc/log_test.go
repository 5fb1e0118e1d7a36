package vmmproc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPanicked(t *testing.T) {
	const report = "[    1.9] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.9] CPU: 0 PID: 1\r\n[    1.9] Call Trace:\r\n"
	tests := []struct {
		name, console string
		want          bool
	}{
		{"nothing", "", false},
		{"a boot", "[    0.6] PCI: Fatal: No config space access function found\r\nup\r\n", false},
		{"a panic", "up\r\n" + report, true},
		{"a panic, cut off", "Kernel panic - not syncing: VFS", true},
		{"a panic, then another boot", report + "Debian GNU/Linux 12 web ttyS0\r\n", false},
		{"two panics", report + "up\r\n" + report, true},
		{"somebody quotes one", "$ grep 'Kernel panic - not syncing' log\r\nnothing\r\n", false},
	}
	for _, tt := range tests {
		if got := panicked([]byte(tt.console)); got != tt.want {
			t.Errorf("%s: panicked = %v", tt.name, got)
		}
	}
}

func FuzzPanicked(f *testing.F) {
	f.Add([]byte("Kernel panic - not syncing\n[ 1"))
	f.Add([]byte("\n\n\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) { panicked(b) })
}

func TestReadTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("before|after"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from, limit int64
		want        string
	}{
		{0, 100, "before|after"}, {7, 100, "after"}, {7, 3, "ter"}, {12, 100, ""},
		{99, 100, "before|after"}, // trimmed since
	} {
		if got := string(ReadTail(path, tt.from, tt.limit)); got != tt.want {
			t.Errorf("ReadTail(%d, %d) = %q, want %q", tt.from, tt.limit, got, tt.want)
		}
	}
	if got := ReadTail(path+".gone", 0, 1); got != nil {
		t.Errorf("ReadTail of nothing = %q", got)
	}
}

func TestLastWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("old\nqemu: \x1b[31mno\x00 kernel\nqemu: bye\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := LastWords(path, 4), "qemu: [31mno kernel;qemu: bye"; got != want {
		t.Errorf("LastWords = %q, want %q", got, want)
	}
}

// What a guest that broke out puts where a log should be.
func TestPrepareLog(t *testing.T) {
	dir := t.TempDir()
	uid := os.Geteuid()
	path := filepath.Join(dir, "log")
	for _, want := range []int64{0, 5} {
		l, err := PrepareLog(path, uid)
		if err != nil || l.From != want {
			t.Fatalf("PrepareLog = %d, %v, want %d", l.From, err, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(path, []byte("words"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link, hard := filepath.Join(dir, "link"), filepath.Join(dir, "hard")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, hard); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, hard, dir} {
		if _, err := PrepareLog(path, uid); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("PrepareLog(%s) = %v", filepath.Base(path), err)
		}
	}
}
