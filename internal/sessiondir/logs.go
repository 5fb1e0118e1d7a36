package sessiondir

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"banger/internal/atomicfile"
)

// Stream is one of the two that a command writes.
type Stream string

// The streams of a session.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

const (
	defaultLimit = 64 << 20
	minLimit     = 64 << 10
)

// LogOptions say how logs are kept.
type LogOptions struct {
	// LimitBytes is what each stream's log may take; the older half goes when
	// it is full. 0 is 64 MiB; the least is 64 KiB. The indexes come on top:
	// at most a quarter of it and 128 KiB.
	LimitBytes int64
	Now        func() time.Time // optional; for tests
}

// Logs writes the logs of a session. Its methods may be called concurrently;
// one waits for another, also if they are about different streams: the order
// of the calls is the order in which the streams are read together.
type Logs struct {
	now func() time.Time
	dir string

	mu       sync.Mutex
	seq      uint64     // of the last entry; guarded by mu
	time     int64      // of the last entry; guarded by mu
	out, err *streamLog // guarded by mu
	closed   bool       // guarded by mu
}

// CreateLogs begins the logs of a session in a directory that exists; logs that
// are there already are removed. On an error none are left.
func CreateLogs(dir string, o LogOptions) (*Logs, error) {
	if o.LimitBytes == 0 {
		o.LimitBytes = defaultLimit
	}
	if o.LimitBytes < minLimit {
		return nil, fmt.Errorf("create logs: a limit of %d bytes is below %d", o.LimitBytes, minLimit)
	}
	return createLogs(&disk{dir: dir}, o)
}

// createLogs is [CreateLogs] without the lower bound.
func createLogs(d *disk, o LogOptions) (*Logs, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Logs{now: o.Now, dir: d.dir}
	l.out = &streamLog{disk: d, names: namesOf(Stdout), half: o.LimitBytes / 2}
	l.err = &streamLog{disk: d, names: namesOf(Stderr), half: o.LimitBytes / 2}
	for _, w := range []*streamLog{l.out, l.err} {
		w.removeAll()
		if err := w.begin(); err != nil {
			l.out.close()
			l.err.close()
			l.out.removeAll()
			l.err.removeAll()
			return nil, fmt.Errorf("create logs: %w", err)
		}
	}
	return l, nil
}

// Write appends to a stream's log; it keeps nothing of b. It never fails, and
// takes no longer than the disk does: what cannot be written (the disk is full,
// a file was taken away) is counted, and as soon as writing works again, a mark
// stands in its place. After Close it does nothing.
func (l *Logs) Write(s Stream, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(b) == 0 {
		return
	}
	w, other := l.out, l.err
	switch s {
	case Stdout:
	case Stderr:
		w, other = other, w
	default:
		panic(fmt.Sprintf("internal error: there is no stream %q", s))
	}
	now := l.now()
	w.check(now)
	w.write(b, l.entry(now))
	l.seq, l.time = max(l.seq, w.last.seq), max(l.time, w.last.time)
	other.overtaken = true
}

// entry returns the next entry of an index. Times do not go back, though the
// guest's clock may.
func (l *Logs) entry(now time.Time) entry {
	return entry{seq: l.seq + 1, time: max(l.time, now.UnixNano())}
}

// Close marks what could not be written, if that works now, and waits until
// all is on the disk. It may be called again, and then does nothing. After an
// error the logs are closed too.
func (l *Logs) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, w := range []*streamLog{l.out, l.err} {
		w.inspect()
		w.mark(l.entry(l.now()))
		l.seq = max(l.seq, w.last.seq)
		errs = append(errs, w.sync(), w.close())
	}
	if err := errors.Join(append(errs, atomicfile.SyncDir(l.dir))...); err != nil {
		return fmt.Errorf("close logs: %w", err)
	}
	return nil
}
