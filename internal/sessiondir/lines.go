package sessiondir

import "bytes"

// lines parts a stream into lines. What it holds begins with the head: a mark,
// a line or more of them, or what there is yet of a line.
type lines struct {
	src  *source
	buf  []byte // held: bytes of the stream that follow each other
	off  int64  // the logical offset of the first
	room []byte // what buf is a part of

	marked piece // a mark that stands after what is held, if it has data
	within bool  // the head goes on with a line of which a part was given
	of     entry // what the index says of the head
	known  bool  // of was looked up
	clear  bool  // the other stream had nothing that goes before what is held
}

func newLines(src *source) *lines {
	return &lines{src: src, room: make([]byte, chunkSize)}
}

// The states of a head.
type headState int

const (
	nothing headState = iota
	partial           // a line that may go on
	ready             // a line, or a mark, or 64 KiB of a line
)

// head sees to it that what there is of the next line is held, and says what
// that is.
func (l *lines) head() headState {
	for {
		switch {
		case len(l.buf) > 0 && (bytes.IndexByte(l.buf, '\n') >= 0 || len(l.buf) == len(l.room)):
			return ready
		case len(l.marked.data) > 0:
			return ready // it ends the line before it
		case !l.fill():
			if len(l.buf) > 0 {
				return partial
			}
			return nothing
		}
	}
}

// fill reads on, and reports whether there was anything. There is room.
func (l *lines) fill() bool {
	l.buf = l.room[:copy(l.room, l.buf)]
	p := l.src.read(l.room[len(l.buf):])
	switch {
	case len(p.data) == 0:
		return false
	case p.mark:
		l.marked = p
	default:
		if len(l.buf) == 0 {
			l.off = p.offset
		}
		l.buf = l.room[:len(l.buf)+len(p.data)]
	}
	l.clear = false
	return true
}

// look takes in what has been added to the stream since all was read, and
// reports whether that is anything. What the index says of the head is looked
// up before: the segment may go.
func (l *lines) look() bool {
	if len(l.buf) > 0 {
		l.entry()
	}
	return l.src.look()
}

// entry returns what the index says of the first byte of the head.
//
// Preconditions: there is a head.
func (l *lines) entry() entry {
	if !l.known {
		at := l.off
		if len(l.buf) == 0 {
			at = l.marked.offset
		}
		l.of, l.known = l.src.entry(at), true
	}
	return l.of
}

// takeLine takes the next line, what there is of it, or a mark.
//
// Preconditions: there is a head.
func (l *lines) takeLine() Chunk {
	if len(l.buf) == 0 {
		return l.takeMark()
	}
	if i := bytes.IndexByte(l.buf, '\n'); i >= 0 {
		return l.take(i + 1)
	}
	return l.take(len(l.buf))
}

// takeWhile takes the next line, and those after it that are held whole as long
// as they belong before the other stream's.
//
// Preconditions: there is a head.
func (l *lines) takeWhile(first func(entry) bool) Chunk {
	n := bytes.IndexByte(l.buf, '\n') + 1
	if n == 0 {
		return l.takeLine()
	}
	head := l.entry()
	for {
		more := bytes.IndexByte(l.buf[n:], '\n') + 1
		if more == 0 {
			break
		}
		l.known, l.of = true, l.src.entry(l.off+int64(n))
		if !first(l.of) {
			break
		}
		n += more
	}
	c := l.take(n)
	c.Time = head.at()
	return c
}

// take takes n bytes of what is held.
func (l *lines) take(n int) Chunk {
	c := Chunk{Stream: l.src.stream, Offset: l.off, Data: l.buf[:n], Time: l.entry().at()}
	l.within = l.buf[n-1] != '\n'
	l.buf, l.off = l.buf[n:], l.off+int64(n)
	l.known = false
	return c
}

func (l *lines) takeMark() Chunk {
	c := Chunk{Stream: l.src.stream, Offset: l.marked.offset, Data: l.marked.data, Time: l.entry().at(), Mark: true}
	l.marked, l.within, l.known = piece{}, false, false
	return c
}
