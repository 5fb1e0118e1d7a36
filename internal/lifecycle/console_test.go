package lifecycle

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTrimConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	var text strings.Builder
	for i := range 1000 {
		text.WriteString(strings.Repeat("x", i%70) + "\n")
	}
	text.WriteString("last\n")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// The VMM's own descriptor, open for appending all along.
	vmm, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer vmm.Close()
	if err := trimConsole(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := vmm.WriteString("after\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) > 2100 || !bytes.HasSuffix(got, []byte("\nlast\nafter\n")) || bytes.IndexByte(got, 0) >= 0 {
		t.Errorf("after trimming %d bytes, %v, ending %q", len(got), err, got[max(0, len(got)-20):])
	}
	if !strings.HasSuffix(text.String()+"after\n", string(got)) {
		t.Error("what is left is not the log's end")
	}
	if err := trimConsole(path, 4096); err != nil {
		t.Error(err)
	}
}

// What stands where the log should be may have been put there by the VMM.
func TestConsoleIsHostile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hard := filepath.Join(dir, "hard")
	if err := os.Link(secret, hard); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo, dir, hard} {
		if f, err := openConsole(path); err == nil {
			f.Close()
			t.Errorf("%s was opened", path)
		}
		if err := trimConsole(path, 2); err == nil {
			t.Errorf("%s was trimmed", path)
		}
		var out bytes.Buffer
		if _, err := copyFrom(&out, path, 0); err == nil || out.Len() > 0 {
			t.Errorf("%s was read: %q, %v", path, &out, err)
		}
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("the secret has become %q, %v", got, err)
	}
}

func TestTailOffset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"a\nb\nc\n", 9, "a\nb\nc\n"},
		{"", 3, ""},
		{"\n\n\n", 1, "\n\n\n"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := openConsole(path)
		if err != nil {
			t.Fatal(err)
		}
		off, err := tailOffset(f, tt.n)
		f.Close()
		if err != nil || tt.text[off:] != tt.want {
			t.Errorf("last %d lines of %q: %q, %v, want %q", tt.n, tt.text, tt.text[off:], err, tt.want)
		}
	}
}

func TestCopyFromATrimmedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var out bytes.Buffer
	off, err := copyFrom(&out, path, 0)
	if err != nil || off != 0 {
		t.Errorf("a log that is not there: %d, %v", off, err)
	}
	for _, text := range []string{"one two three", "four"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if off, err = copyFrom(&out, path, off); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != "one two threefour" || off != 4 {
		t.Errorf("followed %q up to %d", out.String(), off)
	}
}
