package ext4

import (
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"time"
)

// File is a regular file of an [FS]. It holds nothing that would have to be
// closed, and its methods may be called concurrently.
type File struct {
	sys  *FS
	in   *inode
	path string
	last atomic.Pointer[leaf] // the one last read, or nil
}

// Size returns how many bytes the file has.
func (f *File) Size() int64 { return f.in.size }

// ModTime returns when the file was last written, by its guest's clock.
func (f *File) ModTime() time.Time { return f.in.modified }

// ReadAt is that of [io.ReaderAt]. Holes, and what was set aside and not
// written, read as zeros. At a part that cannot be read it returns what stands
// before it and a [*DamagedError]; any other error is of reading the image.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	switch {
	case off < 0:
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: fs.ErrInvalid}
	case len(p) == 0:
		return 0, nil
	case off >= f.in.size:
		return 0, io.EOF
	}
	there := p[:min(int64(len(p)), f.in.size-off)]
	for n < len(there) {
		m, err := f.readSpan(there[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readSpan reads the beginning of p from what stands together at off.
func (f *File) readSpan(p []byte, off int64) (int, error) {
	s, err := f.spanAt(off)
	if err != nil {
		return 0, err
	}
	size := f.sys.blockSize
	p = p[:min(int64(len(p)), int64(s.end)*size-off)]
	if s.zero {
		clear(p)
		return len(p), nil
	}
	if s.disk == 0 {
		return 0, f.failed(off, s.end, damaged("block 0 as data"))
	}
	if s.disk < f.sys.blocks {
		p = p[:min(int64(len(p)), int64(f.sys.blocks-s.disk)*size-off%size)]
	}
	if err := f.sys.read(p, s.disk, off%size); err != nil {
		return 0, f.failed(off, s.end, err)
	}
	return len(p), nil
}

// spanAt returns what stands together from the block with byte off on.
func (f *File) spanAt(off int64) (span, error) {
	block := uint64(off / f.sys.blockSize)
	l := f.leafAt(block)
	if l.err != nil {
		return span{}, f.failed(off, l.end, l.err)
	}
	return l.at(block), nil
}

// leafAt finds the leaf with a block of the file. A reader mostly goes on where
// it was: the last leaf is kept.
func (f *File) leafAt(block uint64) *leaf {
	if l := f.last.Load(); l != nil && l.first <= block && block < l.end {
		return l
	}
	l := f.sys.leafAt(f.in, block)
	if l.err == nil {
		f.last.Store(&l)
	}
	return &l
}

// failed is the error of a read that stopped at off; from block end on there
// may be more.
func (f *File) failed(off int64, end uint64, err error) error {
	if !errors.Is(err, ErrDamaged) {
		return &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	return &DamagedError{Path: f.path, From: off, To: min(int64(end)*f.sys.blockSize, f.in.size), Err: err}
}
