package agent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// filledAttr marks the top directory of a file system that was filled. An
// extended attribute does not show in a home, and is set in one transaction.
const filledAttr = "trusted.banger.filled"

// maxDepth bounds how deep directories are copied: two descriptors are open
// for each level.
const maxDepth = 500

// fill copies what is in src, a directory of the image, into dst, the top of
// an empty file system, with modes, owners, times, links and extended
// attributes, unless that was done before. The mark, an attribute, is set when everything is
// on the disk; before it is, nobody has used the file system, so what an
// earlier call left when the machine died is removed and copied again.
func fill(dst, src *os.File, mark string) error {
	switch n, err := unix.Fgetxattr(int(dst.Fd()), mark, nil); {
	case err == nil && n >= 0:
		return nil
	case !errors.Is(err, unix.ENODATA):
		return fmt.Errorf("read mark of %s: %w", dst.Name(), err)
	}
	if err := removeAll(dst, 0); err != nil {
		return fmt.Errorf("empty %s: %w", dst.Name(), err)
	}
	c := copier{links: map[inode]string{}, mark: mark}
	if err := c.dir(dst, src, "", 0); err != nil {
		return fmt.Errorf("fill %s: %w", dst.Name(), err)
	}
	// An image with an empty directory there, as the smallest have, needs no
	// flush: the mark and the directory's own mode are one transaction.
	if c.copied > 0 {
		if err := unix.Syncfs(int(dst.Fd())); err != nil {
			return fmt.Errorf("sync %s: %w", dst.Name(), err)
		}
	}
	if err := unix.Fsetxattr(int(dst.Fd()), mark, []byte("1"), 0); err != nil {
		return fmt.Errorf("mark %s: %w", dst.Name(), err)
	}
	return nil
}

// inode tells files of one file system apart.
type inode struct{ dev, ino uint64 }

// A copier copies a directory. The image is hostile, but does not change while
// it is read: nothing of it runs yet.
type copier struct {
	copied int              // entries
	links  map[inode]string // first copy of a file with several names, from the top
	top    *os.File
	mark   string // attribute that is ours to set, not the image's
}

// dir copies the content and the attributes of the directory src, at path rel
// from the top, to dst.
func (c *copier) dir(dst, src *os.File, rel string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are over %d deep", maxDepth)
	}
	if depth == 0 {
		c.top = dst
	}
	for {
		names, err := src.Readdirnames(256)
		for _, name := range names {
			if err := c.entry(dst, src, rel, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	return c.attrs(dst, src, &st)
}

// entry copies one entry of the directory src. Its error names the one that
// failed, once, however deep it is.
func (c *copier) entry(dst, src *os.File, rel, name string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		c.copied++
		return c.subdir(dst, src, rel, name, depth)
	}
	if err == nil {
		err = c.leaf(dst, src, rel+name, name, &st)
	}
	if err != nil {
		return fmt.Errorf("copy %s%s: %w", rel, name, err)
	}
	return nil
}

// leaf copies an entry that is no directory; full is its path from the top.
func (c *copier) leaf(dst, src *os.File, full, name string, st *unix.Stat_t) error {
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil // whoever listened on it is gone
	}
	c.copied++
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return unix.Linkat(int(c.top.Fd()), first, int(dst.Fd()), name, 0)
		}
		c.links[id] = full
	}
	switch kind {
	case unix.S_IFREG:
		return c.file(dst, src, name, st)
	case unix.S_IFLNK:
		return copyLink(dst, src, name, st)
	}
	return copyNode(dst, name, st)
}

func (c *copier) subdir(dst, src *os.File, rel, name string, depth int) error {
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("make directory %s%s: %w", rel, name, err)
	}
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("copy %s%s: %w", rel, name, err)
	}
	defer from.Close()
	to, err := openAt(dst, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("copy to %s%s: %w", rel, name, err)
	}
	defer to.Close()
	return c.dir(to, from, rel+name+"/", depth+1)
}

// openAt opens an entry of a directory that is no symbolic link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// removeAll removes what is in a directory: also the lost+found that mkfs
// makes, which has no place in a home (e2fsck makes one if it needs it).
func removeAll(dir *os.File, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are over %d deep", maxDepth)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(int(dir.Fd()), name, 0)
		if !errors.Is(err, unix.EISDIR) {
			if err != nil {
				return err
			}
			continue
		}
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		if !errors.Is(err, unix.ENOTEMPTY) {
			if err != nil {
				return err
			}
			continue // an empty one, as mostly
		}
		sub, err := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = removeAll(sub, depth+1)
		sub.Close()
		if err != nil {
			return err
		}
		if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil {
			return err
		}
	}
	return nil
}
