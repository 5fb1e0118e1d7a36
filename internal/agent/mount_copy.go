package agent

import (
	"banger/internal/sparse"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// file copies a regular file with its attributes.
func (c *copier) file(dst, src *os.File, name string, st *unix.Stat_t) error {
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openAt(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := copySparse(to, from, st.Size); err != nil {
		return err
	}
	return c.attrs(to, from, st)
}

// copySparse copies size bytes and leaves holes as they are: a file that seems
// to be terabytes long takes no more room than in the image.
func copySparse(to, from *os.File, size int64) error {
	end := int64(0) // of the last part
	for part, err := range sparse.Data(from, size) {
		if err != nil {
			return err
		}
		for _, f := range []*os.File{from, to} {
			if _, err := f.Seek(part.From, io.SeekStart); err != nil {
				return err
			}
		}
		// Read and written, and no more than has to be done: homes in images are
		// small, and in software emulation each of the kernel's ways that is
		// taken for the first time (splicing, truncating) costs milliseconds.
		if _, err := io.CopyN(struct{ io.Writer }{to}, struct{ io.Reader }{from}, part.To-part.From); err != nil {
			return err
		}
		end = part.To
	}
	if end == size {
		return nil
	}
	return to.Truncate(size)
}

// attrs gives an open file or directory the owner, mode, extended
// attributes and times of another. The owner comes first, since changing it
// takes away set-user-ID bits and capabilities.
func (c *copier) attrs(dst, src *os.File, st *unix.Stat_t) error {
	if err := unix.Fchown(int(dst.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dst.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	if err := c.xattrs(dst, src); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(dst), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// xattrs copies extended attributes: ACLs and capabilities are among them.
func (c *copier) xattrs(dst, src *os.File) error {
	// The kernel's own limits: XATTR_LIST_MAX and XATTR_SIZE_MAX.
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(src.Fd()), buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	names := string(buf[:n])
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		if name == "" || name == c.mark {
			continue
		}
		n, err := unix.Fgetxattr(int(src.Fd()), name, buf)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(dst.Fd()), name, buf[:n], 0)
		// A file system need not know every kind of attribute.
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

// copyLink copies a symbolic link as it is; nobody follows it here.
func copyLink(dst, src *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(src.Fd()), name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), int(dst.Fd()), name); err != nil {
		return err
	}
	return copyOwner(dst, name, st)
}

// copyNode copies a fifo or a device.
func copyNode(dst *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Mknodat(int(dst.Fd()), name, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	if err := copyOwner(dst, name, st); err != nil {
		return err
	}
	// The umask took its share when it was made. It is no link: it was just
	// made here, and nothing else runs.
	return unix.Fchmodat(int(dst.Fd()), name, st.Mode&0o7777, 0)
}

// copyOwner gives an entry that cannot be opened an owner and times.
func copyOwner(dst *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(int(dst.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dst.Fd()), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
