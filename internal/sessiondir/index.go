package sessiondir

import (
	"encoding/binary"
	"time"
)

// The format of an index, all numbers little-endian:
//
//	header  magic [8]byte, generation uint64, base int64
//	entry   seq uint64, time int64, offset int64; any number of them
//
// The magic names the version too. base is the logical offset of the segment's
// first byte. An entry says that what stands from its offset on was written at
// that time (nanoseconds since 1970) or later, and by its seq, which both
// streams of a session count together, whether before or after what the other
// stream wrote. All three never decrease from entry to entry.
const (
	magic      = "bgridx1\n"
	headerSize = 24
	entrySize  = 24

	// maxOffset bounds what is believed of an index, so that offsets can be
	// added.
	maxOffset = 1 << 61

	// entryEvery is how much later than the entry before something may be
	// written without a new one.
	entryEvery = 10 * time.Millisecond

	// An index may have this much, and a byte for so many of its segment.
	indexFree, indexShare = 64 << 10, 4
)

// A header is how an index begins. Zero is none: generations count from 1.
type header struct {
	gen  uint64
	base int64
}

func (h header) encode() []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = binary.LittleEndian.AppendUint64(b, h.gen)
	return binary.LittleEndian.AppendUint64(b, uint64(h.base))
}

// decodeHeader returns the zero header if b holds none.
func decodeHeader(b []byte) header {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return header{}
	}
	h := header{gen: binary.LittleEndian.Uint64(b[8:]), base: int64(binary.LittleEndian.Uint64(b[16:]))}
	if h.gen == 0 || h.base < 0 || h.base > maxOffset {
		return header{}
	}
	return h
}

// An entry is one of an index. Zero is none: seqs count from 1.
type entry struct {
	seq    uint64
	time   int64 // nanoseconds since 1970
	offset int64 // logical
}

// put encodes an entry into b, which has room for it.
func (e entry) put(b []byte) {
	binary.LittleEndian.PutUint64(b, e.seq)
	binary.LittleEndian.PutUint64(b[8:], uint64(e.time))
	binary.LittleEndian.PutUint64(b[16:], uint64(e.offset))
}

func decodeEntry(b []byte) entry {
	return entry{
		seq:    binary.LittleEndian.Uint64(b),
		time:   int64(binary.LittleEndian.Uint64(b[8:])),
		offset: int64(binary.LittleEndian.Uint64(b[16:])),
	}
}

// at returns the time of an entry; none for none.
func (e entry) at() time.Time {
	if e.seq == 0 {
		return time.Time{}
	}
	return time.Unix(0, e.time).UTC()
}
