package sshkey

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mine lets the user who runs the test read the key.
func mine() Access { return Access{UID: os.Getuid(), GID: os.Getgid(), Mode: 0o600} }

func identity(t *testing.T, path string, a Access) (Key, bool) {
	t.Helper()
	k, fresh, err := Identity(path, "banger", a)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if fi.Mode() != a.Mode || int(st.Uid) != a.UID || int(st.Gid) != a.GID {
		t.Errorf("the key is %v of %d:%d, want %v of %d:%d", fi.Mode(), st.Uid, st.Gid, a.Mode, a.UID, a.GID)
	}
	return k, fresh
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "id_ed25519")
	first, fresh := identity(t, path, mine())
	if !fresh {
		t.Error("the first key is not fresh")
	}
	again, fresh := identity(t, path, mine())
	if fresh || again.Public("") != first.Public("") {
		t.Error("the second call made another key")
	}
	for name, spoil := range map[string]func() error{
		"gone":      func() error { return os.Remove(path) },
		"empty":     func() error { return os.Truncate(path, 0) },
		"cut":       func() error { return os.Truncate(path, 100) },
		"noise":     func() error { return os.WriteFile(path, []byte("noise\n"), 0o600) },
		"huge":      func() error { return os.Truncate(path, maxIdentity+1) },
		"elsewhere": func() error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		next, fresh := identity(t, path, mine())
		if !fresh || next.Public("") == first.Public("") {
			t.Errorf("%s: no new key", name)
		}
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("left beside the key: %v, %v", es, err)
	}
}

// A key that cannot be read is not thrown away.
func TestIdentityUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "id")
	if _, _, err := Identity(path, "", mine()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its directory: %v", err)
	}
	if os.Geteuid() != 0 {
		path = filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(path, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Identity(path, "", mine()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("of somebody else: %v", err)
		}
	}
}

// What a group may use belongs to nobody: OpenSSH refuses a key that its own
// user owns and others may read, and takes one of somebody else's. So the
// members of the group can use it, and root can.
func TestIdentityOfGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("giving files away needs root")
	}
	// ssh-keygen wants its user to have an account: daemon, bin and nobody
	// have one on every Debian.
	const nobodys, group, member, stranger, nobody = 0x78000000, 54321, 1, 2, 65534
	// Where others can get to.
	dir, err := os.MkdirTemp("/tmp", "sshkey-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "id_ed25519")
	identity(t, path, mine())
	k, fresh := identity(t, path, Access{UID: nobodys, GID: group, Mode: 0o040})
	if fresh {
		t.Error("a new owner took a new key")
	}
	read := func(c *syscall.Credential) (string, error) {
		cmd := exec.Command("ssh-keygen", "-y", "-f", path)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for name, c := range map[string]*syscall.Credential{
		"root": {}, "a member": {Uid: member, Gid: member, Groups: []uint32{group}},
	} {
		if got, err := read(c); err != nil || got != k.Public("banger") {
			t.Errorf("%s: ssh-keygen says %q, %v", name, got, err)
		}
	}
	for name, c := range map[string]*syscall.Credential{
		"a stranger": {Uid: stranger, Gid: stranger}, "nobody": {Uid: nobody, Gid: nobody},
	} {
		if got, err := read(c); err == nil {
			t.Errorf("%s may use it: %q", name, got)
		}
	}
	// Back to one user.
	if k2, fresh := identity(t, path, mine()); fresh || k2.Public("") != k.Public("") {
		t.Error("the way back took a new key")
	}
}
