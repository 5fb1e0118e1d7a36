package sessiondir

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// checkEvery is how long a file that the guest took away, or cut, may go
// unnoticed.
const checkEvery = time.Second

// next makes the segment that is full the older one, and begins another. After
// an error there is no segment, or still the full one; it may be called again.
func (w *streamLog) next() error {
	if w.log == nil {
		return w.begin()
	}
	w.measure()
	if w.size == 0 { // the guest has made room
		return nil
	}
	if err := w.remove(w.olderLog); err != nil {
		return err
	}
	if err := w.remove(w.olderIdx); err != nil {
		return err
	}
	_ = w.link(w.names.idx, w.olderIdx) // or it is read without times
	if err := w.rename(w.names.log, w.olderLog); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.restart()
}

// restart begins a segment that follows the one there is, which is left.
func (w *streamLog) restart() error {
	_ = w.close() // nothing can be done about what a file on its way out says
	w.base, w.size = w.end(), 0
	return w.begin()
}

// begin begins a segment at the offset base: the index first, for a log without
// its index would be taken for another part of the stream.
func (w *streamLog) begin() error {
	if err := w.newIndex(); err != nil {
		return err
	}
	f, err := w.create(w.names.log, os.O_APPEND)
	if errors.Is(err, fs.ErrExist) { // planted
		_ = w.remove(w.names.log)
		f, err = w.create(w.names.log, os.O_APPEND)
	}
	if err != nil {
		return err
	}
	w.log, w.size = f, 0
	return nil
}

// newIndex replaces the index by an empty one for the segment at base.
func (w *streamLog) newIndex() error {
	if w.idx != nil {
		w.idx.Close()
		w.idx = nil
	}
	w.gen++
	_ = w.remove(w.newIdx)
	f, err := w.create(w.newIdx, 0)
	if err != nil {
		return err
	}
	err = w.write1At(f, w.newIdx, header{w.gen, w.base}.encode(), 0)
	if err == nil {
		err = w.rename(w.newIdx, w.names.idx)
	}
	if err != nil {
		f.Close()
		_ = w.remove(w.newIdx)
		return err
	}
	w.idx, w.idxSize, w.last = f, headerSize, entry{}
	return nil
}

// removeAll removes all files of the stream.
func (w *streamLog) removeAll() {
	for _, name := range []string{w.names.log, w.olderLog, w.names.idx, w.olderIdx, w.newIdx} {
		_ = w.remove(name) // what stands in the way is found when it does
	}
}

// check looks now and then at what the guest has done to the files.
func (w *streamLog) check(now time.Time) {
	if since := now.Sub(w.checked); since < 0 || since >= checkEvery {
		w.checked = now
		w.inspect()
	}
}

// inspect mends what the guest has done to the files.
func (w *streamLog) inspect() {
	if w.log == nil {
		return
	}
	if w.gone(w.names.log, w.log) {
		// An error leaves the stream without a segment: write tries again.
		_ = w.restart()
		return
	}
	w.measure()
	if w.idx == nil || w.gone(w.names.idx, w.idx) || w.idxCut() {
		_ = w.newIndex() // or it goes on without
	}
}

// measure takes in how large the log has become without us. If it was cut, the
// bytes in it are the last of the stream: the segment begins later.
func (w *streamLog) measure() {
	fi, err := w.log.Stat()
	if err != nil {
		return
	}
	cut := w.size - fi.Size()
	w.size = fi.Size()
	if cut > 0 {
		w.base += cut
		_ = w.newIndex() // or it goes on without
	}
}

func (w *streamLog) idxCut() bool {
	fi, err := w.idx.Stat()
	return err == nil && fi.Size() < w.idxSize
}
