package ext4

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// newGuests returns a file system that belongs to a user without rights, as
// those of guests do, with a file in it.
func newGuests(t *testing.T) (path string, uid uint32) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "banger-ext4-") // others must be able to pass it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tree := filepath.Join(dir, "tree")
	uid = uint32(os.Geteuid())
	if uid == 0 {
		uid = 0x62670001
	}
	path = filepath.Join(dir, "work.ext4")
	err = errors.Join(os.Chmod(dir, 0o711), os.Mkdir(tree, 0o755), os.WriteFile(filepath.Join(tree, "kept"), []byte("still here"), 0o644),
		Make(t.Context(), path, Options{SizeBytes: testSize, From: tree}), os.Chown(path, int(uid), int(uid)))
	if err != nil {
		t.Fatal(err)
	}
	return path, uid
}

func TestGrow(t *testing.T) {
	path, uid := newGuests(t)
	for range 2 {
		if err := Grow(t.Context(), path, 4*testSize, uid); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Check(path); err != nil || s.SizeBytes != 4*testSize {
		t.Errorf("Check = %+v, %v", s, err)
	}
	if out, err := hostcmd.Run(t.Context(), "debugfs", "-R", "cat kept", path); string(out) != "still here" {
		t.Errorf("the file holds %q, %v", out, err)
	}
	if _, err := hostcmd.Run(t.Context(), "e2fsck", "-f", "-n", path); err != nil {
		t.Errorf("after it grew: %v", err)
	}
}

// What a guest has done to its file system is no reason to touch it.
func TestGrowDamaged(t *testing.T) {
	path, uid := newGuests(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	err = Grow(t.Context(), path, 4*testSize, uid)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "cannot be put right") {
		t.Errorf("Grow = %v", err)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != testSize {
		t.Errorf("it has %d bytes, %v", fi.Size(), err)
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := lengthen(link, 4*testSize); err == nil {
		t.Error("a link was followed")
	}
}
