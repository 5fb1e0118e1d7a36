package sessiondir

import (
	"errors"
	"io"
	"io/fs"
)

// A segment is one file of a stream as it is read.
type segment struct {
	log  File
	idx  *entries // nil if it is not known who wrote what when
	base int64    // the logical offset of the first byte
	size int64    // in bytes, as last looked
	cut  bool     // it was larger once
}

// end returns the logical offset after the last byte.
func (g *segment) end() int64 { return g.base + g.size }

func (g *segment) close() {
	if g == nil {
		return
	}
	if g.log != nil {
		g.log.Close()
	}
	if g.idx != nil {
		g.idx.close()
	}
}

// resize takes in what has been added: the log first, for an entry is written
// before the bytes that it is about.
func (g *segment) resize() error {
	size, err := g.log.Size()
	if err != nil {
		return err
	}
	g.size = min(max(size, 0), maxOffset)
	if g.idx != nil {
		g.idx.look()
	}
	return nil
}

// segments are those of a stream, the oldest first.
type segments struct {
	all   []*segment
	head  header // of the newer index
	older header // of the older index
	newer bool   // the newer log was there
}

func (s *segments) close() {
	for _, g := range s.all {
		g.close()
	}
	s.all = nil
}

// openTries bounds how often segments are opened anew because another began
// meanwhile. That takes a writer that fills one each time.
const openTries = 16

// openSegments opens what there is of a stream. The segments that it returns
// can be read also if there is an error, which says why others cannot.
func openSegments(d Dir, s Stream) (*segments, error) {
	for try := 1; ; try++ {
		n := namesOf(s)
		segs, err := openOnce(d, n)
		if try == openTries || segs.same(d, n) {
			return segs, err
		}
		segs.close()
	}
}

// same reports whether nothing has happened since the segments were opened that
// would have had others opened.
func (s *segments) same(d Dir, n names) bool {
	if readHeader(d, n.olderIdx) != s.older || readHeader(d, n.idx) != s.head {
		return false
	}
	if s.newer {
		return true
	}
	f, err := d.Open(n.log)
	if err == nil {
		f.Close()
	}
	return err != nil // as it was
}

// openOnce opens files in the order that the package comment says.
func openOnce(d Dir, n names) (*segments, error) {
	idx, head := openIndex(d, n.idx)
	newer, err := openLog(d, n.log)
	idx1, head1 := openIndex(d, n.olderIdx)
	older, err1 := openLog(d, n.olderLog)

	segs := &segments{head: head, older: head1, newer: newer != nil}
	if older != nil {
		older.base = olderBase(older.size, newer != nil, head, head1)
		segs.add(older, idx1, head1)
		idx1 = nil
	}
	if newer != nil {
		newer.base = newerBase(older, head)
		if older != nil && head.gen != 0 {
			// Others may have added to it. And if the newer one was renamed
			// in between, it is that, and gives nothing.
			older.size = min(older.size, max(0, newer.base-older.base))
		}
		segs.add(newer, idx, head)
		idx = nil
	}
	for _, unused := range []File{idx, idx1} {
		if unused != nil {
			unused.Close()
		}
	}
	return segs, errors.Join(err, err1)
}

// olderBase is where the older segment begins: where its index says, or else
// where the newer one would follow it, or else at the stream's beginning.
func olderBase(size int64, followed bool, head, own header) int64 {
	switch {
	case own.gen != 0 && (head.gen == 0 || own.base <= head.base):
		return own.base
	case followed && head.gen != 0:
		return max(0, head.base-size)
	}
	return 0
}

// newerBase is where the newer segment begins: where its index says, or else
// after the older one.
func newerBase(older *segment, head header) int64 {
	switch {
	case head.gen != 0:
		return head.base
	case older != nil:
		return older.end()
	}
	return 0
}

// add adds a segment, whose index is of use if it begins where the segment
// does.
func (s *segments) add(g *segment, idx File, head header) {
	s.all = append(s.all, g)
	switch {
	case idx == nil:
	case head.gen != 0 && head.base == g.base:
		g.idx = openEntries(idx, g.base)
	default:
		idx.Close()
	}
}

// openLog opens a log, if it is there.
func openLog(d Dir, name string) (*segment, error) {
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g := &segment{log: f}
	if err := g.resize(); err != nil {
		f.Close()
		return nil, err
	}
	return g, nil
}

// openIndex opens an index and reads how it begins: nil and none if it is not
// there or no index.
func openIndex(d Dir, name string) (File, header) {
	f, err := d.Open(name)
	if err != nil {
		return nil, header{}
	}
	var b [headerSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		n = 0
	}
	head := decodeHeader(b[:n])
	if head.gen == 0 {
		f.Close()
		return nil, head
	}
	return f, head
}

func readHeader(d Dir, name string) header {
	f, head := openIndex(d, name)
	if f != nil {
		f.Close()
	}
	return head
}
