package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxTextFile is how much is read of a file in the image that the agent adds
// to. The image may hold anything there.
const maxTextFile = 1 << 20

// A tree is the guest's root file system before the guest runs, or in what was
// a template, before it is used. The image in it may have been made by anybody: every path is resolved as if the tree were
// the root already (RESOLVE_IN_ROOT, openat2(2)), so that no link in it leads
// to the initramfs, and files are replaced, never written through.
type tree struct {
	root     *os.File
	uid, gid int // who owns what write writes: root, but in tests
}

func openTree(dir string) (*tree, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	return &tree{root: f}, nil
}

func (t *tree) Close() error { return t.root.Close() }

// open opens the file at an absolute path in the tree.
func (t *tree) open(name string, flags int) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(t.root.Fd()), name, how)
		// EAGAIN: something was renamed during the look-up.
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// openDir opens the directory at an absolute path, made with perm where it is
// missing, as are its parents with 0755. Symbolic links to directories are
// followed within the tree; a dangling one is an error.
func (t *tree) openDir(name string, perm os.FileMode) (*os.File, error) {
	dir, err := t.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if !errors.Is(err, os.ErrNotExist) {
		return dir, err
	}
	if name == "/" {
		return nil, err
	}
	parent, err := t.openDir(path.Dir(name), 0o755)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(name), uint32(perm.Perm())); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", name, err)
	}
	return t.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// read returns the content of the regular file at name. A file that is
// missing, no regular file or too large to be what it should be reads as
// empty: it is going to be replaced.
func (t *tree) read(name string) ([]byte, error) {
	// O_NONBLOCK: a fifo must not hold up the boot.
	f, err := t.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		for _, harmless := range []error{unix.ENOENT, unix.ELOOP, unix.ENXIO, unix.ENOTDIR} {
			if errors.Is(err, harmless) {
				return nil, nil
			}
		}
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxTextFile {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTextFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// write makes the file at name hold data, owned by root, with permissions
// perm. What was there, a link included, is replaced, unless it is a regular
// file which holds data already. It is not synced: what is lost with a crash
// is written again by the next boot.
func (t *tree) write(name string, data []byte, perm os.FileMode) error {
	if t.holds(name, data, perm) {
		return nil
	}
	dir, err := t.openDir(path.Dir(name), 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := t.replaceAt(dir, path.Base(name), data, perm); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// holds reports whether the file at name, not through a link, is what write
// would make of it.
func (t *tree) holds(name string, data []byte, perm os.FileMode) bool {
	dir, err := t.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer dir.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode != unix.S_IFREG|uint32(perm.Perm()) || int(st.Uid) != t.uid || int(st.Gid) != t.gid {
		return false
	}
	have, err := t.read(name)
	return err == nil && string(have) == string(data)
}

// replaceAt puts a file into dir by way of a temporary name, which is
// always the same: nothing else writes there, and one that is there was left by a
// machine that died.
func (t *tree) replaceAt(dir *os.File, name string, data []byte, perm os.FileMode) error {
	const tmp = ".banger.tmp"
	if err := unix.Unlinkat(int(dir.Fd()), tmp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(int(dir.Fd()), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Chown(t.uid, t.gid), f.Close())
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), tmp, int(dir.Fd()), name)
	}
	if err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), tmp, 0)
	}
	return err
}

// mountOn mounts a file system on a directory of the tree, made with perm if
// it is missing.
func (t *tree) mountOn(source, target, fsType string, flags uintptr, data string, perm os.FileMode) error {
	dir, err := t.openDir(target, perm)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mount(source, fdPath(dir), fsType, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", strings.TrimPrefix(source, "/dev/"), target, err)
	}
	return nil
}

// fdPath is a path to what f has open, whatever its name leads to by now.
func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
