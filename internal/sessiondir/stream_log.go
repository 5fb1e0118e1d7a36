package sessiondir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
)

// names are those of one stream's files.
type names struct{ log, idx, olderLog, olderIdx, newIdx string }

func namesOf(s Stream) names {
	log, idx := string(s)+".log", string(s)+".idx"
	return names{log: log, idx: idx, olderLog: log + ".1", olderIdx: idx + ".1", newIdx: "." + idx + ".tmp"}
}

// A streamLog writes the log of one stream. It is not for concurrent use.
type streamLog struct {
	*disk
	names
	half int64 // a segment's size, in bytes

	log *os.File // nil if the segment could not be begun
	idx *os.File // nil if there is none: the segment goes on without
	gen uint64   // of the last index

	base, size int64 // of the segment: its first byte's offset, and its bytes
	idxSize    int64 // in bytes
	last       entry // of the segment; none if it has none
	overtaken  bool  // the other stream was written since
	midLine    bool  // the last byte was no newline

	dropped int64 // bytes that are not in the log, nor in a mark
	why     error // of the last of them
	checked time.Time
	scratch [entrySize]byte
}

// end returns the logical offset of the next byte.
func (w *streamLog) end() int64 { return w.base + w.size }

// write appends b, after a mark if one is due, and counts what it cannot. e is
// the entry that belongs to it, without offset.
func (w *streamLog) write(b []byte, e entry) {
	if !w.mark(e) {
		w.drop(len(b), w.why)
		return
	}
	if n, err := w.put(b, e); err != nil {
		w.drop(len(b)-n, err)
	}
}

func (w *streamLog) drop(n int, why error) {
	w.dropped += int64(n)
	w.why = why
}

// mark puts a mark where bytes were dropped, and reports whether nothing is
// left to be marked.
func (w *streamLog) mark(e entry) bool {
	if w.dropped == 0 {
		return true
	}
	text := fmt.Sprintf("[banger: %d bytes were dropped: %s]\n", w.dropped, reason(w.why))
	if w.midLine {
		text = "\n" + text
	}
	if _, err := w.put([]byte(text), e); err != nil {
		w.why = err
		return false
	}
	w.dropped, w.why = 0, nil
	return true
}

// reason says in a few words why something could not be written.
func reason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return clean(err.Error(), 100)
}

// put appends b to the segment and, when that is full, to the next. It returns
// how much of it was written.
func (w *streamLog) put(b []byte, e entry) (n int, err error) {
	for n < len(b) {
		m := 0
		if w.log != nil {
			m = w.fit(b[n:])
		}
		if m == 0 {
			if err := w.next(); err != nil {
				return n, err
			}
			continue
		}
		m, err := w.append(b[n:n+m], e)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// fit returns how much of b belongs into the segment. It is parted at the end
// of a line, unless there is none.
func (w *streamLog) fit(b []byte) int {
	room := max(0, w.half-w.size)
	if int64(len(b)) <= room {
		return len(b)
	}
	if i := bytes.LastIndexByte(b[:room], '\n'); i >= 0 {
		return i + 1
	}
	if w.size > 0 {
		return 0
	}
	return int(room)
}

// append writes b to the log: the entry first, so that who reads the bytes
// finds it.
func (w *streamLog) append(b []byte, e entry) (n int, err error) {
	w.note(e)
	n, err = w.write1(w.log, w.names.log, b)
	if n > 0 {
		w.size += int64(n)
		w.midLine = b[n-1] != '\n'
	}
	return n, err
}

// note adds an entry to the index if that says anything new and the index is
// not too large. What cannot be written is done without.
func (w *streamLog) note(e entry) {
	e.offset = w.end()
	said := w.last.seq != 0 && !w.overtaken && e.time-w.last.time < int64(entryEvery)
	if said || w.idx == nil || w.idxSize+entrySize > indexFree+w.size/indexShare {
		return
	}
	e.put(w.scratch[:])
	// At its place: the next one stands over one that was written in part.
	if err := w.write1At(w.idx, w.names.idx, w.scratch[:], w.idxSize); err != nil {
		return
	}
	w.idxSize += entrySize
	w.last, w.overtaken = e, false
}

// sync waits until the segment is on the disk.
func (w *streamLog) sync() error {
	if w.log == nil {
		return w.why
	}
	err := w.log.Sync()
	if w.idx != nil {
		err = errors.Join(err, w.idx.Sync())
	}
	return err
}

// close closes the segment's files, if it has any.
func (w *streamLog) close() error {
	var errs []error
	for _, f := range []*os.File{w.log, w.idx} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	w.log, w.idx = nil, nil
	return errors.Join(errs...)
}
