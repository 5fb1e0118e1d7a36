package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// sum adds to the total what is to be sent of a source. What cannot be read
// is found here, as far as it can be, before anything is sent.
func (s *sender) sum(path string) error {
	fi, d, err := look(path)
	if err != nil {
		return err
	}
	if d == nil {
		s.count(fi)
		return nil
	}
	defer d.Close()
	return s.sumDir(d, filepath.Clean(path), 1)
}

func (s *sender) count(fi fs.FileInfo) {
	s.total.Entries++
	if fi.Mode().IsRegular() {
		s.total.Bytes += fi.Size()
	}
}

func (s *sender) sumDir(d *os.Root, path string, depth int) error {
	if depth > maxDepth {
		return fail("read", path, errDepth)
	}
	if err := s.ctx.Err(); err != nil {
		return outError{err}
	}
	names, err := list(d)
	if err != nil {
		return fail("read", path, err)
	}
	for _, name := range names {
		fi, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone since
		}
		if err != nil {
			return fail("read", join(path, name), err)
		}
		s.count(fi)
		if fi.IsDir() {
			if err := s.sumSub(d, name, join(path, name), fi, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sender) sumSub(d *os.Root, name, path string, fi fs.FileInfo, depth int) error {
	sub, err := openDir(d, name, fi)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail("read", path, err)
	}
	defer sub.Close()
	return s.sumDir(sub, path, depth+1)
}
