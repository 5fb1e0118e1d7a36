package sessiondir

import (
	"bytes"
	"context"
	"time"
)

// toStart has the source begin where one stream is wanted from.
func (s *source) toStart(ctx context.Context, q Query) error {
	if from, ok := q.From[s.stream]; ok {
		s.pos = max(0, from)
		return nil
	}
	_, err := s.toTail(ctx, q)
	return err
}

// toTail has the source begin with the last lines that are wanted, and returns
// how many they are, if their number was limited.
func (s *source) toTail(ctx context.Context, q Query) (lines int64, err error) {
	if q.Tail < 0 {
		s.pos = s.end()
		return 0, nil
	}
	low := int64(0) // before what is kept: that it is missing is told
	if !q.Since.IsZero() {
		if low, err = s.since(ctx, q.Since); err != nil {
			return 0, err
		}
	}
	if q.Tail > 0 {
		low, lines, err = s.tail(ctx, int64(q.Tail), low)
	}
	s.pos = low
	return lines, err
}

// since returns where the first line begins that was written at a time or
// later; 0 if lines that are not kept may have been. What has no index may have
// been written at any time.
func (s *source) since(ctx context.Context, t time.Time) (int64, error) {
	start := s.end()
	for i := len(s.segs.all) - 1; i >= 0; i-- {
		g := s.segs.all[i]
		if g.idx == nil {
			start = g.base
			continue
		}
		e, first := g.idx.since(t)
		if first {
			start = g.base
			continue
		}
		if e.seq != 0 {
			start = min(start, e.offset)
		}
		break // all before is older
	}
	if start <= s.begin() {
		return 0, nil
	}
	return s.lineStart(ctx, start)
}

// lineStart returns where the first line begins, from an offset after the first
// that is kept on; the end if none does.
func (s *source) lineStart(ctx context.Context, offset int64) (int64, error) {
	buf := make([]byte, chunkSize)
	at := offset - 1 // a line's end there makes it the start of one
	for _, g := range s.segs.all {
		if at < g.base { // what is missing ended the line
			return max(at, offset), nil
		}
		for at < g.end() {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			n, _ := readAt(g.log, buf[:min(chunkSize, g.end()-at)], at-g.base)
			if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
				return at + int64(i) + 1, nil
			}
			if n == 0 {
				return max(at, offset), nil // reading from there says what is wrong
			}
			at += int64(n)
		}
	}
	return s.end(), nil
}

// tail returns where the last n lines begin that begin at low or later, and how
// many they are. It is 0 if there are fewer, and low is 0. The memory that it
// takes depends on nothing, the time on how far back they begin.
func (s *source) tail(ctx context.Context, n, low int64) (start, lines int64, err error) {
	c := &tailCount{want: n, buf: make([]byte, chunkSize)}
	below := s.end()
	for i := len(s.segs.all) - 1; i >= 0 && !c.done && s.segs.all[i].end() > low; i-- {
		g := s.segs.all[i]
		if g.end() < below && c.any { // what is missing parts lines
			c.boundary(below)
			c.any = false
		}
		if err := c.scan(ctx, g, max(low, g.base)); err != nil {
			return 0, 0, err
		}
		below = g.base
	}
	switch {
	case c.done:
		return c.start, c.lines, nil
	case c.any:
		c.lines++ // the one that begins where the rest does
	}
	if c.lines == n && low == 0 {
		return s.begin(), c.lines, nil
	}
	return low, c.lines, nil
}

// A tailCount counts lines from the end.
type tailCount struct {
	want, lines int64
	start       int64 // of the last that was counted
	any         bool  // there are bytes after the one that is looked at
	done        bool
	buf         []byte
}

// scan counts the lines of a segment that begin after low.
func (c *tailCount) scan(ctx context.Context, g *segment, low int64) error {
	for hi := g.end(); hi > low && !c.done; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lo := max(low, hi-int64(len(c.buf)))
		b := c.buf[:hi-lo]
		if n, _ := readAt(g.log, b, lo-g.base); n < len(b) {
			// Damaged, or cut: reading from there says so.
			c.start, c.done = lo, true
			return nil
		}
		c.block(b, lo)
		hi = lo
	}
	return nil
}

// block counts those that begin in b after its first byte, or after b.
func (c *tailCount) block(b []byte, offset int64) {
	for !c.done {
		i := bytes.LastIndexByte(b, '\n')
		if i < 0 {
			break
		}
		if c.any || i+1 < len(b) {
			c.boundary(offset + int64(i) + 1)
		}
		c.any = true
		b = b[:i]
	}
	c.any = c.any || len(b) > 0
}

// boundary counts a line that begins at an offset.
func (c *tailCount) boundary(offset int64) {
	c.lines++
	c.start = offset
	c.done = c.lines == c.want
}
