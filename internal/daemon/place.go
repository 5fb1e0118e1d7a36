package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/config"
	"banger/internal/errkind"
)

// ErrLocked says that another daemon has the root. It is no fault: whoever
// started this one finds the other's socket.
var ErrLocked = errors.New("another daemon has this root")

// lock takes a root for this process's life. The lock goes with the process,
// however it ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// owner is who, beside root, may use the daemon.
type owner struct {
	uid, gid int
	isGroup  bool // the group is meant, not the user
}

// makePlaces makes the daemon's directories. VMMs run as users of their own and
// must get through to theirs, so the way there may be passed (0711), not
// listed.
func makePlaces(p config.Paths, o owner) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{p.State, 0o711}, {p.VMs(), 0o711}, {p.SSH(), 0o711},
		{p.Cache, 0o755}, {p.Images(), 0o755}, {p.Kernels(), 0o755},
		{p.Run, 0o711}, {p.VMRuns(), 0o711},
	} {
		if err := makeDir(d.path, d.mode); err != nil {
			return err
		}
	}
	// May be the owner's already, from an earlier daemon.
	if err := makeDirOf(p.SocketDir(), 0o750, o.uid); err != nil {
		return err
	}
	return os.Lchown(p.SocketDir(), o.uid, o.gid)
}

// makeDir makes one directory of ours, or takes one that is there and nobody
// else's.
func makeDir(path string, mode os.FileMode) error { return makeDirOf(path, mode, os.Geteuid()) }

// makeDirOf is makeDir for a directory that may be uid's, too.
func makeDirOf(path string, mode os.FileMode, uid int) error {
	if err := makeParents(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || int(st.Uid) != os.Geteuid() && int(st.Uid) != uid {
		return errkind.New(errkind.Host, "%s is not a directory of root's", path)
	}
	return os.Chmod(path, mode)
}

// makeParents makes the directories above one of ours, open to all whatever
// the umask: VMMs must get through.
func makeParents(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := makeParents(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// checkPassable refuses a root that the VMMs' users could not get to.
func checkPassable(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if fi.Mode()&0o001 == 0 {
			return errkind.WithHint(
				errkind.New(errkind.Host, "%s may not be passed by other users, and each machine runs as a user of its own", dir),
				"chmod o+x "+dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

// findOwner tells who may use the socket: the group banger where there is one,
// else the user who started the daemon.
func findOwner(group func(string) (int, bool), sudoUID string) owner {
	if gid, ok := group("banger"); ok {
		return owner{0, gid, true}
	}
	if uid, err := strconv.ParseUint(sudoUID, 10, 31); err == nil {
		return owner{int(uid), 0, false}
	}
	return owner{os.Geteuid(), os.Getegid(), false}
}
