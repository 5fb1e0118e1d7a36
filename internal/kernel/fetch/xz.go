package fetch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The kernel's build packs x86 code with a filter before LZMA2 that makes
// jumps' targets absolute, which the library at hand does not know. So its
// LZMA2 is used and what stands around it is read here: one stream of blocks,
// by the .xz file format 1.1.0. Checksums of the content are not verified:
// what comes from the archive was, as a whole, and the ELF header is looked at.
const (
	xzHeader     = 12
	xzFilterX86  = 0x04
	xzFilterLZMA = 0x21
	xzCheckMask  = 0x0f
	// maxXZDict is how large a dictionary may be, in bytes.
	maxXZDict = maxWindow
)

var errXZ = errors.New("xz: damaged")

// unpackXZ unpacks the first stream of an .xz file; what follows is ignored.
func unpackXZ(w io.Writer, r io.Reader) error {
	b := &countReader{r: bufio.NewReader(r)}
	var head [xzHeader]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return fmt.Errorf("xz: %w", err)
	}
	if !bytes.HasPrefix(head[:], []byte(xzMagic)) || head[6] != 0 || crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errXZ
	}
	check := xzCheckSize(head[7] & xzCheckMask)
	for {
		more, err := unpackXZBlock(w, b, check)
		if err != nil {
			return fmt.Errorf("xz: %w", err)
		}
		if !more {
			return nil
		}
	}
}

// xzCheckSize is how many bytes follow each block for its checksum.
func xzCheckSize(id byte) int64 {
	if id == 0 {
		return 0
	}
	return int64(4) << ((id - 1) / 3)
}

// unpackXZBlock unpacks a block. It reports false where the index begins.
func unpackXZBlock(w io.Writer, b *countReader, check int64) (bool, error) {
	size, err := b.ReadByte()
	if err != nil || size == 0 {
		return false, err
	}
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(b, head[1:]); err != nil {
		return false, err
	}
	body := head[:len(head)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[len(head)-4:]) {
		return false, errXZ
	}
	x86, dict, err := xzFilters(body)
	if err != nil {
		return false, err
	}
	data := b.n
	z, err := lzma.Reader2Config{DictCap: dict}.NewReader2(b)
	if err != nil {
		return false, err
	}
	if err := copyFiltered(w, z, x86); err != nil {
		return false, err
	}
	pad := (4 - (b.n-data)%4) % 4
	_, err = io.CopyN(io.Discard, b, pad+check)
	return err == nil, err
}

func copyFiltered(w io.Writer, r io.Reader, x86 bool) error {
	if !x86 {
		_, err := io.Copy(w, r)
		return err
	}
	f := &x86Writer{w: w}
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.flush()
}

// xzFilters reads a block's header: whether the x86 filter is used, and how
// large the dictionary is.
func xzFilters(head []byte) (x86 bool, dict int, err error) {
	flags, rest := head[1], head[2:]
	varint := func() uint64 {
		v, n := binary.Uvarint(rest) // the same encoding
		if n <= 0 {
			err = errXZ
			return 0
		}
		rest = rest[n:]
		return v
	}
	for _, bit := range []byte{0x40, 0x80} { // sizes, packed and not
		if flags&bit != 0 {
			varint()
		}
	}
	for n := int(flags & 3); n >= 0 && err == nil; n-- {
		id, size := varint(), varint()
		if err != nil || size > uint64(len(rest)) {
			return false, 0, errXZ
		}
		props := rest[:size]
		rest = rest[size:]
		switch {
		case id == xzFilterX86 && n == 1 && !x86 && size == 0:
			x86 = true
		case id == xzFilterLZMA && n == 0 && size == 1:
			dict, err = xzDict(props[0])
		default:
			return false, 0, fmt.Errorf("filter %#x is not known here", id)
		}
	}
	return x86, dict, err
}

func xzDict(bits byte) (int, error) {
	if bits > 40 {
		return 0, errXZ
	}
	size := uint64(2|bits&1) << (bits/2 + 11)
	if size > maxXZDict {
		return 0, fmt.Errorf("dictionary of %d bytes is over %d", size, maxXZDict)
	}
	return int(max(size, lzma.MinDictCap)), nil
}

// countReader counts what is read, and reads no more than it is asked for.
type countReader struct {
	r *bufio.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// x86Writer undoes the x86 filter: the targets of calls and jumps (e8, e9) are
// absolute in what is written to it, and relative again in what it writes on.
// The method, with its memory of opcodes just seen, is that of the format's
// reference implementation, so that both ends decide alike.
type x86Writer struct {
	w    io.Writer
	buf  []byte // not yet decided on
	pos  uint32 // of buf[0] in the stream
	mask uint32
	prev uint32 // where the last opcode stood, in the stream
	warm bool   // prev is set
}

// x86Chunk is how much is gathered before it is looked at, in bytes.
const x86Chunk = 64 << 10

func (x *x86Writer) Write(p []byte) (int, error) {
	x.buf = append(x.buf, p...)
	if len(x.buf) < x86Chunk {
		return len(p), nil
	}
	done := x.decode()
	if _, err := x.w.Write(x.buf[:done]); err != nil {
		return 0, err
	}
	x.buf = append(x.buf[:0], x.buf[done:]...)
	x.pos += uint32(done)
	return len(p), nil
}

func (x *x86Writer) flush() error {
	x.decode()
	_, err := x.w.Write(x.buf)
	x.buf = nil
	return err
}

// decode handles all opcodes that stand whole in buf, and returns how much of
// it is final.
func (x *x86Writer) decode() int {
	if !x.warm {
		x.prev, x.warm = ^uint32(4), true // -5: long ago
	}
	const opcode = 5 // bytes, with its operand
	i := 0
	for i+opcode <= len(x.buf) {
		b := x.buf[i]
		if b != 0xe8 && b != 0xe9 {
			i++
			continue
		}
		i += x.operand(i)
	}
	return i
}

// sign reports whether b can be the top byte of a near target.
func sign(b byte) bool { return b == 0 || b == 0xff }

// operand handles the opcode at i and returns how far to go on.
func (x *x86Writer) operand(i int) int {
	here := x.pos + uint32(i)
	dist := here - x.prev
	x.prev = here
	if dist > 5 {
		x.mask = 0
	} else {
		for range dist {
			x.mask = x.mask & 0x77 << 1
		}
	}
	top := x.buf[i+4]
	if !sign(top) || !maskAllowed(x.mask>>1&7) || x.mask>>1 >= 0x10 {
		x.mask |= 1
		if sign(top) {
			x.mask |= 0x10
		}
		return 1
	}
	src := binary.LittleEndian.Uint32(x.buf[i+1:])
	var dest uint32
	for {
		dest = src - (here + 5)
		if x.mask == 0 {
			break
		}
		bit := maskBit(x.mask >> 1)
		if !sign(byte(dest >> (24 - bit*8))) {
			break
		}
		src = dest ^ (1<<(32-bit*8) - 1)
	}
	dest &= 0x01ffffff
	if dest&0x01000000 != 0 {
		dest |= 0xff000000
	}
	binary.LittleEndian.PutUint32(x.buf[i+1:], dest)
	x.mask = 0
	return 5
}

func maskAllowed(m uint32) bool {
	return [8]bool{true, true, true, false, true, false, false, false}[m]
}

func maskBit(m uint32) uint32 { return [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}[m&7] }
