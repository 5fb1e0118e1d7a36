package templatefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// block is how much of a file is told apart by sum, in bytes.
const block = 64 << 10

var zeros [block]byte

// sum returns a SHA-256 of a file's content in hexadecimal digits: of its size
// and, of each block that is not all zero, of its number and content; numbers
// are 64 bits, big end first. So it depends on the content alone, not on where
// there are holes, but a hole costs nothing: most of a guest's memory is one.
func sum(ctx context.Context, f *os.File) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	size := fi.Size()
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	buf := make([]byte, 8+block)
	for at := int64(0); at < size; at += block {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if at, err = nextData(f, at); err != nil {
			return "", err
		}
		if at >= size {
			break
		}
		data := buf[8:][:min(block, size-at)]
		if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(data))), data); err != nil {
			return "", err
		}
		if bytes.Equal(data, zeros[:len(data)]) {
			continue
		}
		binary.BigEndian.PutUint64(buf, uint64(at/block))
		h.Write(buf[:8+len(data)])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// nextData returns the beginning of the first block from at, which is one, that
// is not all hole; past every end if there is none.
func nextData(f *os.File, at int64) (int64, error) {
	data, err := f.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return math.MaxInt64, nil
	}
	if err != nil {
		return 0, err
	}
	return data - data%block, nil
}
