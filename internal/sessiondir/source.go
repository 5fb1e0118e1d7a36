package sessiondir

import (
	"errors"
	"fmt"
	"io"
)

// chunkSize is the most that is read or given at once, in bytes.
const chunkSize = 64 << 10

// A ReadError says where a log cannot be read.
type ReadError struct {
	Stream Stream
	Offset int64 // logical
	Err    error // what the [Dir] said
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read %s at byte %d: %v", e.Stream, e.Offset, e.Err)
}

// Unwrap returns what the [Dir] said.
func (e *ReadError) Unwrap() error { return e.Err }

// A source reads one stream forward, across its segments, also while it grows.
type source struct {
	dir    Dir
	stream Stream
	segs   *segments
	pos    int64 // the logical offset of the next byte; it never goes back
	last   byte  // the last that was read; '\n' at first
	errs   []error
}

// openSource opens a stream; what of it cannot be opened is in errs.
func openSource(d Dir, s Stream) *source {
	src := &source{dir: d, stream: s, last: '\n'}
	src.segs, _ = src.open()
	return src
}

// open opens the segments that there are now, and adds to errs why others
// cannot be.
func (s *source) open() (*segments, error) {
	segs, err := openSegments(s.dir, s.stream)
	if err != nil {
		s.fail(s.pos, err)
	}
	return segs, err
}

func (s *source) close() { s.segs.close() }

// fail keeps the first errors of a stream; a disk may have one at each block.
func (s *source) fail(offset int64, err error) {
	if len(s.errs) < 4 {
		s.errs = append(s.errs, &ReadError{s.stream, offset, err})
	}
}

// begin returns the logical offset of the first byte that is kept.
func (s *source) begin() int64 {
	if len(s.segs.all) == 0 {
		return 0
	}
	return s.segs.all[0].base
}

// end returns the logical offset after the last byte there was when it was last
// looked.
func (s *source) end() int64 {
	if n := len(s.segs.all); n > 0 {
		return s.segs.all[n-1].end()
	}
	return 0
}

// look takes in what has been added since all was read, and reports whether
// that is anything.
func (s *source) look() bool {
	head := readHeader(s.dir, namesOf(s.stream).idx)
	// Without an index there is nothing to tell a new segment by.
	if s.segs.newer && (head.gen == 0 || head == s.segs.head) {
		return s.grown()
	}
	segs, err := s.open()
	if len(segs.all) == 0 && err == nil {
		return s.grown() // between two segments
	}
	s.segs.close()
	s.segs = segs
	return s.pos < s.end()
}

// grown looks at the segment that is followed. One that has shrunk is at its
// end: what stands in it now has other offsets, which its next index will tell.
func (s *source) grown() bool {
	if n := len(s.segs.all); n > 0 {
		g := s.segs.all[n-1]
		was := g.size
		if err := g.resize(); err != nil {
			s.fail(s.pos, err)
		}
		g.cut = g.cut || g.size < was
		if g.cut {
			g.size = 0
		}
	}
	return s.pos < s.end()
}

// A piece is what comes next of a stream.
type piece struct {
	offset int64 // logical
	data   []byte
	mark   bool // data is not of the stream, but says what is missing
}

// read reads the next piece, into buf unless it is a mark; there is none if its
// data is empty. It goes up to where was last looked.
func (s *source) read(buf []byte) piece {
	for {
		g := s.segment()
		if g == nil {
			return piece{}
		}
		if s.pos < g.base {
			n := g.base - s.pos
			s.pos = g.base
			return s.mark("[banger: %d earlier bytes were dropped]\n", n)
		}
		room := min(int64(len(buf)), g.end()-s.pos)
		n, err := readAt(g.log, buf[:room], s.pos-g.base)
		if n > 0 {
			p := piece{offset: s.pos, data: buf[:n]}
			s.pos += int64(n)
			s.last = buf[n-1]
			return p
		}
		if size, serr := g.log.Size(); errors.Is(err, io.EOF) && serr == nil {
			if g.base+size <= s.pos { // it was cut
				g.size = s.pos - g.base
				continue
			}
			err = io.ErrUnexpectedEOF
		}
		s.fail(s.pos, err)
		return s.mark("[banger: %d bytes cannot be read]\n", s.skip(g))
	}
}

// readAt is f.ReadAt, which tells the end by an error if it gave nothing.
func readAt(f File, buf []byte, at int64) (int, error) {
	n, err := f.ReadAt(buf, at)
	n = min(max(n, 0), len(buf))
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// segment returns the one in which, or before which, the next byte stands; nil
// if all was read.
func (s *source) segment() *segment {
	for _, g := range s.segs.all {
		if s.pos < g.end() {
			return g
		}
	}
	return nil
}

// skip goes on at a byte that can be read, and returns how many are left out.
// It looks further and further away: the rest of a log may be unreadable.
func (s *source) skip(g *segment) int64 {
	const block = 4 << 10
	from := s.pos
	var b [1]byte
	for step := int64(block); ; step *= 2 {
		at := (s.pos-g.base)/block*block + step
		if at >= g.size {
			s.pos = g.end()
			break
		}
		if n, _ := readAt(g.log, b[:], at); n > 0 {
			s.pos = g.base + at
			break
		}
	}
	return s.pos - from
}

// mark makes a mark, a line of its own, that stands before the next byte.
func (s *source) mark(format string, n int64) piece {
	var text []byte
	if s.last != '\n' {
		text = append(text, '\n')
	}
	s.last = '\n'
	return piece{offset: s.pos, data: fmt.Appendf(text, format, n), mark: true}
}

// entry returns what the index says of the byte at a logical offset; none if
// nothing is known. Offsets may not go back from call to call.
func (s *source) entry(offset int64) entry {
	for _, g := range s.segs.all {
		if offset < g.end() {
			if g.idx == nil || offset < g.base {
				return entry{}
			}
			return g.idx.at(offset)
		}
	}
	return entry{}
}
