package dmsnap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"banger/internal/disk"
	"banger/internal/errkind"
)

// openTemplate opens the COW that a layer is to stand on, which must have been
// made over the layer's base, of baseSize bytes, and returns what it says of
// that.
func openTemplate(l disk.Layer, baseSize int64) (f *os.File, r record, err error) {
	if !filepath.IsAbs(l.Template) {
		return nil, record{}, fmt.Errorf("template's layer %q: its path is not absolute", l.Template)
	}
	f, err = openOwn(l.Template, os.O_RDONLY)
	if err == nil {
		if r, err = readTemplate(f, l, baseSize); err != nil {
			f.Close()
		}
	}
	if err != nil {
		err = fmt.Errorf("template's layer %s: %w", l.Template, err)
		return nil, record{}, errkind.WithHint(err, "ls -l "+errkind.Quote(l.Template))
	}
	return f, r, nil
}

func readTemplate(f *os.File, l disk.Layer, baseSize int64) (record, error) {
	b := make([]byte, chunkSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return record{}, err
	}
	if err := checkHeader(b[:n]); err != nil {
		return record{}, err
	}
	text, _, _ := bytes.Cut(b[recordAt:], []byte{0})
	r, err := decodeRecord(text)
	if err != nil {
		return record{}, fmt.Errorf("what it was made over is not known: %w", err)
	}
	if err := r.checkBase(l, baseSize); err != nil {
		return record{}, err
	}
	return r, checkCow(f, r)
}
