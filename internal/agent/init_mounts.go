package agent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountForContainers mounts what programs expect to find beside /dev, /proc,
// /sys and /run where no init does it, as the OCI runtime specification lists
// it (config-linux.md), and what an image without an init may lack.
func mountForContainers() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		fs, dir string
		flags   uintptr
		data    string
	}{
		// Group 5 is tty, in every distribution.
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", safe, ""},
		{"cgroup2", "/sys/fs/cgroup", safe, "nsdelegate"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, m.flags, m.data); err != nil {
			// A kernel may be built without any of them; what needs one
			// says so itself.
			say(fmt.Sprintf("warning: mount %s: %v", m.dir, err))
		}
	}
	for name, to := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, name); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return makeTmp("/tmp")
}

// makeTmp makes a directory for temporary files if there is none. One that is
// there, of whatever kind, is the image's business.
func makeTmp(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	return os.Chmod(dir, 0o777|os.ModeSticky)
}
