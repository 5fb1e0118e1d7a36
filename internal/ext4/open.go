package ext4

import (
	"io/fs"
	"path"
	"strings"
)

// Open opens a regular file by its absolute path, following no symbolic link,
// neither on the way nor at its end. An error names what on the way is at
// fault. It is an [fs.ErrNotExist], an [ErrDamaged] if what stands on the disk
// makes no sense, or says what else is the matter: that it is a directory, for
// example, or encrypted. Names are compared byte for byte, in directories that
// fold case too.
func (s *FS) Open(name string) (*File, error) {
	f, err := s.walk(name)
	if err == nil {
		err = f.readable(modeFile)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// walk finds what stands at a path, of any kind.
func (s *FS) walk(name string) (*File, error) {
	if !path.IsAbs(name) {
		return nil, pathError(name, fs.ErrInvalid)
	}
	f, err := s.file("/", rootInode)
	for part := range strings.SplitSeq(path.Clean(name)[1:], "/") {
		if err != nil || part == "" { // of "/"
			return f, err
		}
		var n uint32
		if n, err = f.lookup(part); err == nil {
			f, err = s.file(path.Join(f.path, part), n)
		}
	}
	return f, err
}

func (s *FS) file(name string, n uint32) (*File, error) {
	in, err := s.inode(n)
	if err != nil {
		return nil, pathError(name, err)
	}
	return &File{sys: s, in: in, path: name}, nil
}

// readable says why what f holds cannot be read, or is not of the kind.
func (f *File) readable(kind uint16) error {
	if err := f.in.readable(kind); err != nil {
		return pathError(f.path, err)
	}
	return nil
}

func pathError(name string, err error) error {
	return &fs.PathError{Op: "open", Path: name, Err: err}
}
