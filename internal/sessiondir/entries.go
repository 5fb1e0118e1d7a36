package sessiondir

import (
	"errors"
	"io"
	"time"
)

// entryBlock is how many entries are read at once.
const entryBlock = 170

// entries reads those of an index. It takes the same memory and, for each
// question, a number of reads that grows with the logarithm of the index's
// size, whatever stands in it.
type entries struct {
	f    File
	base int64 // of the segment
	n    int64 // how many there are, as last looked

	next  int64 // the number of the one after cur
	cur   entry // the last that was found
	after entry // the one numbered next, if it is there

	block   [entryBlock * entrySize]byte
	blockAt int64 // the number of the first entry in block
	blockN  int64 // how many are in block
}

// openEntries returns those of an index, which it owns from then on.
func openEntries(f File, base int64) *entries {
	x := &entries{f: f, base: base}
	x.look()
	return x
}

// look takes in what has been added.
func (x *entries) look() {
	size, err := x.f.Size()
	if err != nil || size < headerSize {
		return
	}
	if n := (size - headerSize) / entrySize; n != x.n {
		x.n, x.blockN = n, 0
		x.after = x.get(x.next)
	}
}

// get returns the entry of a number; none if it cannot be read or cannot be.
func (x *entries) get(i int64) entry {
	if i < 0 || i >= x.n {
		return entry{}
	}
	if i < x.blockAt || i >= x.blockAt+x.blockN {
		x.read(i - i%entryBlock)
	}
	if i >= x.blockAt+x.blockN {
		return entry{}
	}
	e := decodeEntry(x.block[(i-x.blockAt)*entrySize:])
	if e.seq == 0 || e.offset < x.base || e.offset > maxOffset {
		return entry{}
	}
	return e
}

// read fills the block with the entries from number i on.
func (x *entries) read(i int64) {
	want := min(entryBlock, x.n-i) * entrySize
	n, err := x.f.ReadAt(x.block[:want], headerSize+i*entrySize)
	if err != nil && !errors.Is(err, io.EOF) {
		n = 0
	}
	x.blockAt, x.blockN = i, int64(n/entrySize)
}

// at returns the last entry that covers the byte at an offset; none if nothing
// is known. Offsets may not go back from call to call.
func (x *entries) at(offset int64) entry {
	if x.cur.seq != 0 && (x.after.seq == 0 || offset < x.after.offset) {
		return x.cur
	}
	before := func(i int64) bool { e := x.get(i); return e.seq != 0 && e.offset <= offset }
	i := searchFrom(x.next, x.n, before)
	// One that goes back is ignored.
	if e := x.get(i - 1); i > x.next && e.seq >= x.cur.seq && e.offset >= x.cur.offset {
		x.cur = e
	}
	x.next, x.after = i, x.get(i)
	return x.cur
}

// since returns the first entry of a time or later, and whether that is the
// first of all; none if there is none.
func (x *entries) since(t time.Time) (e entry, first bool) {
	// Outside of what an entry can tell, UnixNano is undefined.
	at := int64(0)
	switch {
	case t.Before(time.Unix(0, 0)):
	case t.After(time.Unix(0, 1<<63-1)):
		at = 1<<63 - 1
	default:
		at = t.UnixNano()
	}
	i := searchFrom(0, x.n, func(i int64) bool { e := x.get(i); return e.seq != 0 && e.time < at })
	return x.get(i), i == 0
}

// searchFrom returns the first i of [from, n) for which before is false, or n,
// if before is true for all less than that. It looks near from first.
func searchFrom(from, n int64, before func(int64) bool) int64 {
	lo, hi, step := from, n, int64(1)
	for lo < n { // all before lo are before
		probe := min(lo+step, n) - 1
		if !before(probe) {
			hi = probe
			break
		}
		lo, step = probe+1, 2*step
	}
	for lo < hi {
		if mid := lo + (hi-lo)/2; before(mid) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (x *entries) close() { x.f.Close() }
