package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/sshkey"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v, want %v", err, ErrLocked)
	}
	f.Close()
	again, err := lock(path)
	if err != nil {
		t.Fatalf("lock of a daemon that is gone: %v", err)
	}
	again.Close()
}

func TestCheckPassable(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "banger-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	inner := filepath.Join(dir, "a", "b")
	if err := makeParents(inner); err != nil {
		t.Fatal(err)
	}
	err = checkPassable(inner)
	if h := errkind.Hints(err); errkind.Of(err) != errkind.Host || len(h) != 1 || h[0] != "chmod o+x "+dir {
		t.Errorf("under a directory of mode 0700: %v, hints %q", err, h)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := checkPassable(inner); err != nil {
		t.Errorf("under a directory of mode 0711: %v", err)
	}
}

func TestMakeDirRefusesALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(filepath.Join(dir, "link"), 0o711); errkind.Of(err) != errkind.Host {
		t.Errorf("makeDir of a link: %v", err)
	}
	if err := makeDir(filepath.Join(dir, "new"), 0o711); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "new")); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestFindOwner(t *testing.T) {
	none := func(string) (int, bool) { return 0, false }
	banger := func(name string) (int, bool) { return 123, name == "banger" }
	for _, tt := range []struct {
		group func(string) (int, bool)
		sudo  string
		want  owner
	}{
		{banger, "1000", owner{0, 123, true}},
		{none, "1000", owner{1000, 0, false}},
		{none, "", owner{os.Geteuid(), os.Getegid(), false}},
		{none, "-1", owner{os.Geteuid(), os.Getegid(), false}},
	} {
		if got := findOwner(tt.group, tt.sudo); got != tt.want {
			t.Errorf("owner for SUDO_UID %q = %v, want %v", tt.sudo, got, tt.want)
		}
	}
}

// The key belongs to one user, or is a group's to read and nobody's own.
func TestKeyAccess(t *testing.T) {
	if got, want := (owner{1000, 0, false}).keyAccess(), (sshkey.Access{UID: 1000, GID: 0, Mode: 0o600}); got != want {
		t.Errorf("of a user: %+v, want %+v", got, want)
	}
	got := (owner{0, 123, true}).keyAccess()
	if got.GID != 123 || got.Mode != 0o040 {
		t.Errorf("of a group: %+v", got)
	}
	// As [config.Paths.UIDBase] promises, whatever the tag.
	c := config.Default()
	if last := (config.Paths{Tag: "ffffff"}).UIDBase(c) + c.UIDs - 1; uint32(got.UID) <= last || got.UID >= 1<<31 {
		t.Errorf("it belongs to %d, and VMMs run as users up to %d", got.UID, last)
	}
}
