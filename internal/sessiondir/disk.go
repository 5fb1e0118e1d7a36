package sessiondir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A disk does what changes a directory.
type disk struct {
	dir string

	// testOnlyFault, if set, is called before each change. It may do less of a
	// write of n bytes, or nothing, and say what went wrong.
	testOnlyFault func(op, name string, n int) (allowed int, err error)
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *disk) fault(op, name string, n int) (int, error) {
	if d.testOnlyFault == nil {
		return n, nil
	}
	return d.testOnlyFault(op, name, n)
}

// create makes a file that is not there, for its owner alone.
func (d *disk) create(name string, flags int) (*os.File, error) {
	if _, err := d.fault("create", name, 0); err != nil {
		return nil, err
	}
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|flags, 0o600)
}

func (d *disk) remove(name string) error {
	if _, err := d.fault("remove", name, 0); err != nil {
		return err
	}
	err := syscall.Unlink(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *disk) link(from, to string) error {
	if _, err := d.fault("link", to, 0); err != nil {
		return err
	}
	return os.Link(d.path(from), d.path(to))
}

func (d *disk) rename(from, to string) error {
	if _, err := d.fault("rename", to, 0); err != nil {
		return err
	}
	return os.Rename(d.path(from), d.path(to))
}

// write1 appends b to f, in one call of the system if that takes all of it.
func (d *disk) write1(f *os.File, name string, b []byte) (n int, err error) {
	allowed, fault := d.fault("write", name, len(b))
	if allowed > 0 {
		n, err = f.Write(b[:allowed])
	}
	if err == nil {
		err = fault
	}
	return n, err
}

func (d *disk) write1At(f *os.File, name string, b []byte, off int64) error {
	allowed, fault := d.fault("write", name, len(b))
	if _, err := f.WriteAt(b[:allowed], off); err != nil {
		return err
	}
	return fault
}

// gone reports whether a name leads elsewhere than to f.
func (d *disk) gone(name string, f *os.File) bool {
	named, err := os.Lstat(d.path(name))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	fi, err := f.Stat()
	return err == nil && !os.SameFile(named, fi)
}
