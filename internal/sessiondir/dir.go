package sessiondir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A Dir is the directory of a session as it is read: in the guest, or on the
// disk of a machine that is off.
type Dir interface {
	// Open opens the regular file of that name. It never waits, and follows
	// no link: what is no regular file is an error. [fs.ErrNotExist] means
	// that there is nothing.
	Open(name string) (File, error)
}

// A File is one of a [Dir]; it stays readable when its name goes. Nothing is
// promised of its content: it may grow, shrink or change at any time.
type File interface {
	io.ReaderAt
	io.Closer
	// Size returns how many bytes it has now.
	Size() (int64, error)
}

// OSDir returns the directory at a path of the system that this runs on.
func OSDir(path string) Dir { return osDir(path) }

type osDir string

// Open opens a file of any number of names: who may plant a second one in this
// directory may read every file of the guest. (That is why it is not
// [plainfile.Open].)
func (d osDir) Open(name string) (File, error) {
	path := filepath.Join(string(d), name)
	// O_NONBLOCK: a FIFO would have it wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is a symbolic link")}
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
