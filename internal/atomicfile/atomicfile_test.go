package atomicfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Write": Write, "Replace": Replace} {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		for _, want := range []string{"one", "two"} {
			if err := write(path, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != want {
				t.Errorf("%s: read %q, %v, want %q", name, got, err, want)
			}
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 0600", name, fi.Mode(), err)
		}
		onlyEntry(t, dir, "f")
	}
}

func TestWriteFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil {
		t.Error("Write over a directory succeeded")
	}
	onlyEntry(t, dir, "f")
}

func onlyEntry(t *testing.T, dir, name string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 || es[0].Name() != name {
		t.Errorf("directory holds %v (%v), want only %s", es, err, name)
	}
}

func TestWriteAs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 54321, 54322
	}
	if err := WriteAs(path, []byte("x"), 0o640, uid, gid); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid || fi.Mode() != 0o640 {
		t.Errorf("it is %v of %d:%d", fi.Mode(), st.Uid, st.Gid)
	}
}
