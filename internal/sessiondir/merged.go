package sessiondir

import (
	"context"
	"errors"
	"slices"
)

// A merged reads both streams, line by line.
type merged struct {
	out, err *lines
	emit     func(Chunk) error
}

func openMerged(ctx context.Context, d Dir, q Query, emit func(Chunk) error) (reader, error) {
	m := &merged{out: newLines(openSource(d, Stdout)), err: newLines(openSource(d, Stderr)), emit: emit}
	if err := m.toStart(ctx, q); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// toStart begins where both are wanted from.
func (m *merged) toStart(ctx context.Context, q Query) error {
	if len(q.From) == 0 {
		return m.toTail(ctx, q)
	}
	if err := m.out.src.toStart(ctx, q); err != nil {
		return err
	}
	return m.err.src.toStart(ctx, q)
}

// toTail begins with the last lines that are wanted: as many of each stream,
// then without the first of both together.
func (m *merged) toTail(ctx context.Context, q Query) error {
	a, err := m.out.src.toTail(ctx, q)
	if err != nil {
		return err
	}
	b, err := m.err.src.toTail(ctx, q)
	if err != nil || q.Tail <= 0 {
		return err
	}
	return m.skip(ctx, a+b-int64(q.Tail))
}

// skip leaves out n lines, and the marks before and between them.
func (m *merged) skip(ctx context.Context, n int64) error {
	for l := m.next(); l != nil; l = m.next() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !l.within {
			if n <= 0 {
				return nil
			}
			if len(l.buf) > 0 {
				n--
			}
		}
		l.takeLine()
	}
	return nil
}

// next returns the stream whose head is next, if nothing more comes; nil if
// there is nothing.
func (m *merged) next() *lines {
	out, err := m.out.head() != nothing, m.err.head() != nothing
	switch {
	case out && m.out.within:
		return m.out
	case err && m.err.within:
		return m.err
	case out && err && errFirst(m.out.entry(), m.err.entry()):
		return m.err
	case out:
		return m.out
	case err:
		return m.err
	}
	return nil
}

// errFirst reports whether a line of stderr goes before one of stdout. If there
// is an entry of one alone, nothing is known.
func errFirst(out, err entry) bool {
	return out.seq != 0 && err.seq != 0 && err.seq < out.seq
}

func (m *merged) rest(ctx context.Context) error {
	for l := m.next(); l != nil; l = m.next() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.give(l, m.other(l).head() == nothing); err != nil {
			return err
		}
	}
	return nil
}

func (m *merged) news(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l, more := m.nextNews()
		switch {
		case l != nil:
			if err := m.give(l, m.other(l).head() != ready); err != nil {
				return err
			}
		case !more:
			return nil
		}
	}
}

// nextNews returns the stream whose head is next, while more may come; nil if
// that is to be looked at again, or if there is nothing more.
func (m *merged) nextNews() (l *lines, more bool) {
	out, err := m.out.head(), m.err.head()
	for _, l := range []*lines{m.out, m.err} {
		if l.within && (l.head() != nothing || l.look()) {
			if l.head() == nothing {
				return nil, true
			}
			return l, true
		}
	}
	switch {
	case out == ready && err == ready && errFirst(m.out.entry(), m.err.entry()):
		return m.err, true
	case out == ready && err == ready:
		return m.out, true
	case out == ready:
		return m.ifClear(m.out, m.err), true
	case err == ready:
		return m.ifClear(m.err, m.out), true
	}
	a, b := m.out.look(), m.err.look()
	return nil, a || b
}

// ifClear returns l if nothing of the other stream goes before what l holds:
// nothing was there after it had been read.
func (m *merged) ifClear(l, other *lines) *lines {
	if !l.clear && other.look() {
		return nil
	}
	l.clear = true
	return l
}

// give gives what is next of a stream: up to where the other one is next,
// unless it goes on alone.
func (m *merged) give(l *lines, alone bool) error {
	switch {
	case l.within:
		return m.emit(l.takeLine())
	case alone:
		return m.emit(l.takeWhile(func(entry) bool { return true }))
	}
	theirs := m.other(l).entry()
	if l == m.out {
		return m.emit(l.takeWhile(func(e entry) bool { return !errFirst(e, theirs) }))
	}
	return m.emit(l.takeWhile(func(e entry) bool { return errFirst(theirs, e) }))
}

func (m *merged) other(l *lines) *lines {
	if l == m.out {
		return m.err
	}
	return m.out
}

func (m *merged) errors() error {
	return errors.Join(slices.Concat(m.out.src.errs, m.err.src.errs)...)
}

func (m *merged) close() {
	m.out.src.close()
	m.err.src.close()
}
