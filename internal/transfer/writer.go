package transfer

import (
	"context"
	"io"

	"banger/internal/guest/wire"
)

// A Writer takes a copy of one file as bytes. It may be used by one goroutine
// at a time.
type Writer struct {
	w        io.Writer
	progress func(done, total int64)
	file     bool  // it has begun
	left     int64 // bytes of the file; negative: not known
	done     int64 // bytes
	total    int64 // bytes, by the sender's account
	ended    bool
}

// NewWriter returns a Writer that writes to w. Progress is told how many bytes
// of how many, by the sender's account, have come; it may be nil.
func NewWriter(w io.Writer, progress func(done, total int64)) *Writer {
	return &Writer{w: w, progress: progress}
}

// Whole reports whether the file has come to its end.
func (w *Writer) Whole() bool { return w.ended }

// Item takes what came. An error of the writer below comes out as it is.
func (w *Writer) Item(_ context.Context, it *wire.CopyItem) (*wire.CopyHave, error) {
	if w.ended {
		return nil, invalid("more after the end")
	}
	switch m := it.GetMsg().(type) {
	case *wire.CopyItem_Total:
		w.total = max(0, m.Total.GetBytes())
		return nil, nil
	case *wire.CopyItem_File:
		return nil, w.begin(m.File)
	case *wire.CopyItem_Data:
		return nil, w.data(m.Data)
	case *wire.CopyItem_Hole:
		return nil, w.hole(m.Hole)
	case *wire.CopyItem_End:
		if !w.file || w.left >= 0 {
			return nil, invalid("the end of no stream")
		}
		w.left = 0
		return nil, nil
	case *wire.CopyItem_Dir:
		return nil, fail("write", "standard output", errDirectory)
	case *wire.CopyItem_Abort:
		return nil, ErrAborted
	case *wire.CopyItem_Done:
		if !w.file || w.left != 0 {
			return nil, invalid("an end before the end")
		}
		w.ended = true
		return nil, nil
	}
	return nil, invalid("an item that is no part of a file")
}

func (w *Writer) begin(f *wire.CopyFile) error {
	if w.file || f.GetOffset() != 0 || f.GetSizeBytes() < 0 {
		return invalid("not one file")
	}
	w.file, w.left = true, f.GetSizeBytes()
	if f.GetUnsized() {
		w.left = -1
	}
	if len(f.GetData()) == 0 {
		return nil
	}
	return w.data(f.GetData())
}

func (w *Writer) data(b []byte) error {
	n := int64(len(b))
	if !w.file || w.left >= 0 && n > w.left {
		return invalid("more than its size")
	}
	if _, err := w.w.Write(b); err != nil {
		return err
	}
	if w.left > 0 {
		w.left -= n
	}
	w.done += n
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return nil
}

// hole writes n zero bytes: a stream has no holes.
func (w *Writer) hole(n int64) error {
	if n < 0 || w.left < n {
		return invalid("more than its size")
	}
	zero := make([]byte, min(n, chunk))
	for n > 0 {
		b := zero[:min(n, chunk)]
		if err := w.data(b); err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}
