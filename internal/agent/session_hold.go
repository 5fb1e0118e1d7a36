package agent

import (
	"context"
	"encoding/binary"
	"errors"
)

// A holder is who is attached to a session and has its input.
type holder struct {
	name  string
	taken chan string // gets the name of who takes the place; has room for it
}

// errHeld says who is attached.
type errHeld struct{ name string }

func (e errHeld) Error() string { return e.name }

// hold makes h the one that is attached, unless somebody is and h is not to
// take the place.
func (s *sessionSupervisor) hold(h *holder, take bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil {
		if !take {
			return errHeld{s.holder.name}
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
	input := make(chan []byte, 4)
	go s.feed(ctx, input)
	go func() {
		select {
		case by := <-h.taken:
			_ = c.write(frameTaken, []byte(by))
			c.Close() // ends the loop below
		case <-ctx.Done():
		}
	}()
	defer close(input)
	repaint := true
	for {
		f, err := c.read()
		if err != nil {
			return
		}
		if hi.ReadOnly {
			continue // its end is all that counts
		}
		if f.kind == frameResize && len(f.data) == 4 {
			s.resize(binary.BigEndian.Uint16(f.data), binary.BigEndian.Uint16(f.data[2:]), repaint)
			repaint = false
			continue
		}
		if err := s.takeTyped(ctx, input, f); err != nil {
			c.refuse(err)
			return
		}
	}
}

// takeTyped does what a frame of who is attached asks for.
func (s *sessionSupervisor) takeTyped(ctx context.Context, input chan<- []byte, f frame) error {
	data := f.data
	switch f.kind {
	case frameSignal:
		return s.signal(string(f.data))
	case frameEOF:
		data = nil
	case frameData:
		if len(data) == 0 {
			return nil
		}
	default:
		return errors.New("a frame of no known kind")
	}
	select {
	case input <- data:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// feed writes to the input what comes, piece by piece; nil ends it. What the
// command does not take is dropped, as with an exec.
func (s *sessionSupervisor) feed(ctx context.Context, input <-chan []byte) {
	for b := range input {
		leave, err := s.input.begin(ctx)
		if err != nil {
			continue
		}
		if b == nil {
			s.closeInput()
		} else {
			_, _ = s.input.write(ctx, b)
		}
		leave()
	}
}
