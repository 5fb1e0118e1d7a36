package workdisk

import (
	"banger/internal/sparse"
	"bytes"
	"errors"
	"io"
	"os"
)

const (
	// maxTemplate is how many bytes of one file system are kept at most.
	maxTemplate = 16 << 20
	// maxTemplates is how many sizes are kept.
	maxTemplates = 4
)

// errTooMuch says that a file system is too large to be kept in memory.
var errTooMuch = errors.New("too much that is not zero")

// template is what a file system consists of: everything else is zero.
type template []extent

type extent struct {
	at   int64
	data []byte
}

// readTemplate reads what of a sparse file is not zero.
func readTemplate(f *os.File, size int64) (template, error) {
	var t template
	total := 0
	for part, err := range sparse.Data(f, size) {
		if err != nil {
			return nil, err
		}
		n := part.To - part.From
		if total += int(min(n, maxTemplate+1)); total > maxTemplate {
			return nil, errTooMuch
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(io.NewSectionReader(f, part.From, n), data); err != nil {
			return nil, err
		}
		t = t.add(part.From, data)
	}
	return t, nil
}

// add adds the blocks of data that are not zero, neighbours as one.
func (t template) add(at int64, data []byte) template {
	var zero [blockSize]byte
	end := int64(-1) // of the last extent
	for len(data) > 0 {
		n := min(blockSize, len(data))
		if !bytes.Equal(data[:n], zero[:n]) {
			if at != end {
				t = append(t, extent{at: at})
			}
			last := &t[len(t)-1]
			last.data = append(last.data, data[:n]...)
			end = at + int64(n)
		}
		at, data = at+int64(n), data[n:]
	}
	return t
}

// write makes an empty file hold the file system.
func (t template) write(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	for _, e := range t {
		if _, err := f.WriteAt(e.data, e.at); err != nil {
			return err
		}
	}
	return nil
}
