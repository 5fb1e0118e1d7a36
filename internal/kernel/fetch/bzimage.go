package fetch

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"banger/internal/errkind"
)

// A bzImage, by the kernel's documentation (x86/boot.rst): sectors that set
// up, then code that unpacks, with the packed kernel in it.
const (
	offSetupSects    = 0x1f1
	offHdrS          = 0x202
	offProtocol      = 0x206
	offPayload       = 0x248
	offPayloadLength = 0x24c
	headerSize       = 0x250
	minProtocol      = 0x208 // the first with the payload's place
	sector           = 512

	// maxKernel is how large an unpacked kernel may be, in bytes.
	maxKernel = 1 << 30
	// maxWindow is how far back a compressed kernel may refer, in bytes. The
	// kernel's own build takes 128 MiB for zstd.
	maxWindow = 256 << 20
)

// unpackKernel writes the ELF kernel in image, a bzImage or an ELF kernel of
// size bytes, to w. An image that makes no sense is an error of kind
// [errkind.Usage].
func unpackKernel(w io.Writer, image io.ReaderAt, size int64) error {
	head := make([]byte, min(size, headerSize))
	if _, err := image.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, []byte(elfMagic)) {
		_, err := io.Copy(w, io.NewSectionReader(image, 0, size))
		return err
	}
	payload, err := findPayload(head, image, size)
	if err != nil {
		return errkind.New(errkind.Usage, "kernel image: %w", err)
	}
	if err := unpackPayload(w, payload); err != nil {
		return errkind.New(errkind.Usage, "unpack kernel image: %w", err)
	}
	return nil
}

func findPayload(head []byte, image io.ReaderAt, size int64) (*io.SectionReader, error) {
	le := binary.LittleEndian
	if len(head) < headerSize || string(head[offHdrS:offHdrS+4]) != "HdrS" {
		return nil, errors.New("neither a bzImage nor an ELF file")
	}
	if v := le.Uint16(head[offProtocol:]); v < minProtocol {
		return nil, fmt.Errorf("boot protocol %d.%02d is too old", v>>8, v&0xff)
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4 // as the documentation has it
	}
	start := (sects+1)*sector + int64(le.Uint32(head[offPayload:]))
	length := int64(le.Uint32(head[offPayloadLength:]))
	if length <= 8 || start+length > size {
		return nil, fmt.Errorf("kernel of %d bytes at %d in a file of %d", length, start, size)
	}
	return io.NewSectionReader(image, start, length), nil
}

// unpackPayload unpacks what the kernel's build packs. Its last four bytes are
// the size of what comes out; gzip has them as part of its format.
func unpackPayload(w io.Writer, payload *io.SectionReader) error {
	var magic [6]byte
	var tail [4]byte
	if _, err := payload.ReadAt(magic[:], 0); err != nil {
		return err
	}
	if _, err := payload.ReadAt(tail[:], payload.Size()-4); err != nil {
		return err
	}
	want := int64(binary.LittleEndian.Uint32(tail[:]))
	if want > maxKernel {
		return fmt.Errorf("%d bytes are over %d", want, maxKernel)
	}
	packed := io.NewSectionReader(payload, 0, payload.Size()-4)
	out := &limitWriter{w: w, left: want}
	if err := unpackBy(magic[:], out, packed, payload); err != nil {
		return err
	}
	if out.left != 0 {
		return fmt.Errorf("%d bytes are missing", out.left)
	}
	return nil
}

func unpackBy(magic []byte, out io.Writer, packed, whole io.Reader) error {
	switch {
	case bytes.HasPrefix(magic, []byte(lz4Magic)):
		return unpackLZ4(out, packed)
	case bytes.HasPrefix(magic, []byte(zstdMagic)):
		return unpackZstd(out, packed)
	case bytes.HasPrefix(magic, []byte(xzMagic)):
		return unpackXZ(out, packed)
	case bytes.HasPrefix(magic, []byte(gzipMagic)):
		return unpackGzip(out, whole)
	}
	return fmt.Errorf("unknown compression (it begins with % x); known are LZ4, zstd, gzip and xz", magic)
}

const (
	elfMagic  = "\x7fELF"
	lz4Magic  = "\x02\x21\x4c\x18" // the legacy frame
	zstdMagic = "\x28\xb5\x2f\xfd"
	xzMagic   = "\xfd7zXZ\x00"
	gzipMagic = "\x1f\x8b"
)

func unpackGzip(w io.Writer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	z.Multistream(false)
	_, err = io.Copy(w, z)
	return err
}

func unpackZstd(w io.Writer, r io.Reader) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxKernel))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.Copy(w, z)
	return err
}

// errTooLarge is what writing beyond a limit gives.
var errTooLarge = errors.New("more data than it may hold")

// limitWriter is an error once more than left bytes are written.
type limitWriter struct {
	w    io.Writer
	left int64
}

func (l *limitWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, errTooLarge
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	return n, err
}
