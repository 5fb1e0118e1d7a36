package fetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// lz4Block is how much a block of LZ4's legacy frame holds unpacked.
const lz4Block = 8 << 20

// unpackLZ4 unpacks a legacy frame: blocks, each with its packed size before
// it, up to the end.
func unpackLZ4(w io.Writer, r io.Reader) error {
	if _, err := io.CopyN(io.Discard, r, int64(len(lz4Magic))); err != nil {
		return err
	}
	packed := make([]byte, lz4.CompressBlockBound(lz4Block))
	block := make([]byte, lz4Block)
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(size[:])
		if int64(n) > int64(len(packed)) {
			return fmt.Errorf("LZ4 block of %d bytes", n)
		}
		if _, err := io.ReadFull(r, packed[:n]); err != nil {
			return fmt.Errorf("LZ4 block: %w", err)
		}
		m, err := lz4.UncompressBlock(packed[:n], block)
		if err != nil {
			return fmt.Errorf("LZ4 block: %w", err)
		}
		if _, err := w.Write(block[:m]); err != nil {
			return err
		}
	}
}
