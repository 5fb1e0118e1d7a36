// Package sparse copies files that have holes.
package sparse

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

// step is how many bytes are copied between two looks at the context.
const step = 8 << 20

// Part is a part of a file, as offsets; To is behind it.
type Part struct{ From, To int64 }

// Data ranges over the parts of the first size bytes of a file that are no holes,
// in their order. It moves the file's offset, which may be moved in between. An
// error is the last that comes, with no part.
func Data(f *os.File, size int64) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for at := int64(0); at < size; {
			from, err := f.Seek(at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) || err == nil && from >= size {
				return // a hole to the end
			}
			if err == nil {
				at, err = f.Seek(from, unix.SEEK_HOLE)
			}
			if err != nil {
				yield(Part{}, err)
				return
			}
			if !yield(Part{from, min(at, size)}, nil) {
				return
			}
		}
	}
}

// Copy makes to, an empty file, hold the first size bytes of from, with the same
// holes, and zeros from its end on: on the same blocks of the disk where the file
// system can do that. It moves the offsets of both. On an error, that of the
// context included, to holds part of it. It is not synced.
func Copy(ctx context.Context, to, from *os.File, size int64) error {
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return to.Truncate(size)
	}
	for part, err := range Data(from, size) {
		if err == nil {
			err = copyPart(ctx, to, from, part)
		}
		if err != nil {
			return err
		}
	}
	return to.Truncate(size)
}

// copyPart copies a part to the same place; the kernel does it by itself where it
// can.
func copyPart(ctx context.Context, to, from *os.File, p Part) error {
	for _, f := range []*os.File{to, from} {
		if _, err := f.Seek(p.From, io.SeekStart); err != nil {
			return err
		}
	}
	for n := p.To - p.From; n > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		done, err := io.CopyN(to, from, min(n, step))
		if err != nil {
			return err
		}
		n -= done
	}
	return nil
}
