// Package plainfile opens files in directories that belong to somebody who is
// not trusted: what stands at a name there may be anything.
//
// It looks at the last element of a path only. The directory itself may be
// hostile, but not the way to it. Who owns the file is for the caller to check.
package plainfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens the regular file at path, which must have this name alone: a
// second one may be that of a file elsewhere. It follows no link and never
// waits, also where a FIFO was planted; programs that are started later do not
// inherit the file. Flags and perm are those of [os.OpenFile]; O_TRUNC takes
// effect after the checks, so that it empties no file that fails them.
//
// An error is an [fs.PathError], which names the path and says why;
// [fs.ErrNotExist] means that there is no file. It may be called concurrently.
func Open(path string, flags int, perm os.FileMode) (*os.File, error) {
	trunc := flags&os.O_TRUNC != 0
	flags &^= os.O_TRUNC
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, perm)
	if errors.Is(err, unix.ELOOP) {
		return nil, fail(path, errors.New("it is a symbolic link"))
	}
	if err != nil {
		return nil, err
	}
	if err = check(f); err == nil && trunc {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, fail(path, err)
	}
	return f, nil
}

// check reports a file that is not regular, or has not one name.
func check(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("how many names it has is not known")
	case st.Nlink == 0:
		return fs.ErrNotExist // removed since it was opened
	case st.Nlink > 1:
		return fmt.Errorf("it has %d names", st.Nlink)
	}
	return nil
}

// fail says why the file at path was not opened, naming the path once.
func fail(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}
