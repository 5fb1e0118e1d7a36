package agent

import (
	"context"
	"encoding/binary"
	"time"
)

// A holder is who is attached to a session and has its input.
type holder struct {
	name  string
	taken chan string // gets the name of who takes the place; has room for it
}

// heldError says who is attached.
type heldError struct{ name string }

func (e heldError) Error() string { return e.name }

// hold makes h the one that is attached, unless somebody is and h is not to
// take the place.
func (s *sessionSupervisor) hold(h *holder, take bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil {
		if !take {
			return heldError{s.holder.name}
		}
		s.holder.taken <- h.name
	}
	s.holder = h
	return nil
}

// letGo ends a hold, if it was not taken.
func (s *sessionSupervisor) letGo(h *holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder == h {
		s.holder = nil
	}
}

// serveAttach joins a connection to the session's input until it ends or
// somebody takes its place.
func (s *sessionSupervisor) serveAttach(ctx context.Context, c *sessionConn, hi hello) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &holder{name: hi.Name, taken: make(chan string, 1)}
	if !hi.ReadOnly {
		if err := s.hold(h, hi.Take); err != nil {
			c.refuse(err)
			return
		}
		defer s.letGo(h)
	}
	if c.write(frameOK, nil) != nil {
		return
	}
	input, fed := make(chan []byte, attachWindow), make(chan struct{})
	go func() {
		defer close(fed)
		s.feed(ctx, c, input)
	}()
	go func() {
		select {
		case by := <-h.taken:
			cancel()
			_ = c.write(frameTaken, []byte(by))
			c.Close() // ends what reads from it
		case <-ctx.Done():
		}
	}()
	s.takeTyped(ctx, c, input, hi.ReadOnly)
	close(input)
	select { // what was typed last
	case <-fed:
	case <-time.After(lastTyped):
	}
}

const (
	// attachWindow is how many pieces of input may be on their way: who is
	// attached sends no more until one was taken, so that its end is noticed
	// while the command does not read.
	attachWindow = 4
	// lastTyped is what the command gets to read what was typed before
	// somebody left.
	lastTyped = 200 * time.Millisecond
)

// takeTyped does what the frames of who is attached ask for, until there are no
// more.
func (s *sessionSupervisor) takeTyped(ctx context.Context, c *sessionConn, input chan<- []byte, readOnly bool) {
	repaint := true
	for {
		f, err := c.read()
		if err != nil {
			return
		}
		switch {
		case readOnly: // its end is all that counts
		case f.kind == frameResize && len(f.data) == 4:
			s.resize(binary.BigEndian.Uint16(f.data), binary.BigEndian.Uint16(f.data[2:]), repaint)
			repaint = false
		case f.kind == frameSignal:
			_ = s.signal(string(f.data)) // one that does not exist does nothing
		case f.kind == frameData && len(f.data) > 0, f.kind == frameEOF:
			select {
			case input <- f.data:
			case <-ctx.Done():
				return
			}
		}
	}
}

// feed writes to the input what comes, piece by piece, and says so; an empty
// piece ends it. What the command does not take is dropped, as with an exec.
func (s *sessionSupervisor) feed(ctx context.Context, c *sessionConn, input <-chan []byte) {
	for b := range input {
		if leave, err := s.input.begin(ctx); err == nil {
			if len(b) == 0 {
				_ = s.endInput(ctx)
			} else {
				_, _ = s.input.write(ctx, b)
			}
			leave()
		}
		_ = c.write(frameWritten, make([]byte, 8)) // it may have gone
	}
}
