package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// source is one regular file that is sent.
type source struct {
	name string         // in its directory; empty: a source itself
	path string         // for messages
	part *wire.CopyFile // as it was offered, with what the other end has; or nil
	open func() (*os.File, error)
}

func (s *sender) file(src source) error {
	f, err := src.open()
	if errors.Is(err, fs.ErrNotExist) && src.name != "" {
		return s.skip(src.path, gone)
	}
	if err != nil {
		return fail("read", src.path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fail("read", src.path, err)
	}
	if !fi.Mode().IsRegular() {
		return s.skip(src.path, "it is no file any more")
	}
	item := &wire.CopyFile{
		Name: []byte(src.name), Mode: unixMode(fi.Mode()), MtimeNs: mtime(fi), SizeBytes: fi.Size(),
	}
	if src.part.GetSizeBytes() == item.SizeBytes && src.part.GetMtimeNs() == item.MtimeNs {
		item.Offset = src.part.GetOffset()
	}
	switch {
	case item.Offset > 0 && item.Offset == item.SizeBytes:
		s.advance(src.path, item.Offset)
		return nil
	case item.SizeBytes <= chunk:
		item.Offset = 0
		return s.small(f, src.path, item)
	}
	if err := s.send(fileItem(item)); err != nil {
		return err
	}
	s.advance(src.path, item.Offset)
	if sparse(fi) {
		return s.segments(f, src.path, item.Offset, item.SizeBytes)
	}
	return s.span(f, src.path, item.Offset, item.SizeBytes)
}

// small sends a file that is said to be small in one message, of the size that
// it turns out to have: files in /proc are empty by their own account.
func (s *sender) small(f *os.File, path string, item *wire.CopyFile) error {
	n, err := io.ReadFull(f, s.buf)
	item.Data, item.SizeBytes = s.buf[:n], int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if err := s.send(fileItem(item)); err != nil {
			return err
		}
		s.advance(path, int64(n))
		return nil
	case err != nil:
		return fail("read", path, err)
	}
	item.SizeBytes, item.Unsized = 0, true
	if err := s.send(fileItem(item)); err != nil {
		return err
	}
	s.advance(path, int64(n))
	return s.rest(f, path)
}

// rest sends what r still holds of a file of no known size.
func (s *sender) rest(r io.Reader, path string) error {
	for {
		n, err := r.Read(s.buf)
		if n > 0 {
			if err := s.send(dataItem(s.buf[:n])); err != nil {
				return err
			}
			s.advance(path, int64(n))
		}
		if errors.Is(err, io.EOF) {
			return s.send(endItem())
		}
		if err != nil {
			return fail("read", path, err)
		}
	}
}

var errShorter = errors.New("it became shorter meanwhile")

// span sends the bytes of f from one offset to another.
func (s *sender) span(f *os.File, path string, from, to int64) error {
	for from < to {
		n, err := f.ReadAt(s.buf[:min(chunk, to-from)], from)
		if n > 0 {
			if err := s.send(dataItem(s.buf[:n])); err != nil {
				return err
			}
			s.advance(path, int64(n))
			from += int64(n)
			continue
		}
		if errors.Is(err, io.EOF) {
			err = errShorter
		}
		if err != nil {
			return fail("read", path, err)
		}
	}
	return nil
}

// sparse reports whether a file occupies less than its size.
func sparse(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Blocks*512 < fi.Size() // st_blocks counts 512 bytes (stat(2))
}

// segments is span for a file with holes.
func (s *sender) segments(f *os.File, path string, from, to int64) error {
	for from < to {
		data, err := f.Seek(from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = to, nil // no data after it
		}
		if err != nil {
			return fail("read", path, err)
		}
		if data = min(data, to); data > from {
			if err := s.send(&wire.CopyItem{Msg: &wire.CopyItem_Hole{Hole: data - from}}); err != nil {
				return err
			}
			s.advance(path, data-from)
		}
		if from = data; from == to {
			break
		}
		hole, err := f.Seek(from, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			err = errShorter
		}
		if err != nil {
			return fail("read", path, err)
		}
		hole = min(hole, to)
		if err := s.span(f, path, from, hole); err != nil {
			return err
		}
		from = hole
	}
	return nil
}
