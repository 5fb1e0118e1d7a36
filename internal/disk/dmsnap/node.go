package dmsnap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// putNode makes path a block device node that uid alone may use, whatever
// stood there. The directory may be uid's own, and uid hostile: the node gets
// its owner through a descriptor, and its name last.
func putNode(path string, dev uint64, uid uint32) error {
	if isNode(path, dev, uid) {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(path)); err != nil {
		return err
	}
	if err := unix.Mknod(tmp, unix.S_IFBLK|0o600, int(dev)); err != nil {
		return fmt.Errorf("make device node %s: %w", tmp, err)
	}
	err := onNode(tmp, func(fd int, st unix.Stat_t) error {
		if st.Rdev != dev {
			return errors.New("somebody else put another there")
		}
		return unix.Fchownat(fd, "", int(uid), int(uid), unix.AT_EMPTY_PATH)
	})
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("make device node %s: %w", path, err)
	}
	return nil
}

func isNode(path string, dev uint64, uid uint32) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode == unix.S_IFBLK|0o600 && st.Rdev == dev && st.Uid == uid
}

// onNode calls f with the block device node at path, which it does not open
// for use.
func onNode(path string, f func(fd int, st unix.Stat_t) error) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return errors.New("it is no block device")
	}
	return f(fd, st)
}

// dropNodes removes every block device node from a machine's directory, and
// whatever stands at the name of ours. Its user may have given the node other
// names, and the device's number goes to somebody else's disk next: so the node
// is taken from him first, under all of its names.
func dropNodes(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Type()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := onNode(path, disarm); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("take away device node %s: %w", path, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, os.RemoveAll(filepath.Join(dir, nodeName)))
	return errors.Join(errs...)
}

func disarm(fd int, _ unix.Stat_t) error {
	if err := unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0)
}

// checkDevices reports a directory in which no device node can be opened.
func checkDevices(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at file system of %s: %w", dir, err)
	}
	if st.Flags&unix.MS_NODEV == 0 {
		return nil
	}
	return errkind.WithHint(
		errkind.New(errkind.Host, "the file system of %s is mounted with nodev, so no VMM can open a device there", dir),
		fmt.Sprintf(`mount -o remount,dev "$(findmnt -n -o TARGET -T %s)"`, errkind.Quote(dir)))
}

// A name in /dev/mapper is for people: udev makes it a link where it runs.

func mapperPath(name string) string { return "/dev/mapper/" + name }

func putMapperNode(name string, dev uint64) error {
	if _, err := os.Stat("/run/udev/control"); err == nil {
		return nil
	}
	return putNode(mapperPath(name), dev, 0)
}

func dropMapperNode(name string) error {
	path := mapperPath(name)
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
