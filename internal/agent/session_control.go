package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// accept serves whoever connects, to the end of the process.
func (s *sessionSupervisor) accept() {
	for {
		c, err := s.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			_ = pause(context.Background(), 100*time.Millisecond) // no descriptors, say
			continue
		}
		go s.serve(&sessionConn{Conn: c, r: bufio.NewReader(c)})
	}
}

// A sessionConn is a connection to a session's supervisor, at either end.
type sessionConn struct {
	net.Conn
	r  *bufio.Reader
	mu sync.Mutex // one frame at a time is written
}

func (c *sessionConn) read() (frame, error) { return readFrame(c.r) }

func (c *sessionConn) write(kind byte, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return writeFrame(c.Conn, kind, data)
}

// refuse says why, and that this is the end.
func (c *sessionConn) refuse(err error) { _ = c.write(frameRefused, []byte(oneLine(err))) }

// serve serves one connection, to its end.
func (s *sessionSupervisor) serve(c *sessionConn) {
	defer c.Close()
	first, err := c.read()
	var h hello
	if err != nil || first.kind != frameHello || json.Unmarshal(first.data, &h) != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch h.Purpose {
	case purposeSend:
		s.serveSend(ctx, c)
	case purposeAttach:
		s.serveAttach(ctx, c, h)
	case purposeControl:
		s.serveControl(c)
	}
}

// serveSend writes what comes to the input, as one piece. Frames are read while
// the command does not read, so that a sender may give up or go away.
func (s *sessionSupervisor) serveSend(ctx context.Context, c *sessionConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The next comes after the answer to the one before. One has room: what
	// comes behind it may be that the sender gives up.
	frames := make(chan frame, 1)
	go func() {
		defer cancel()
		for {
			f, err := c.read()
			if err != nil || f.kind == frameCancel {
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	leave, err := s.input.begin(ctx)
	if err != nil {
		_ = c.write(frameWritten, make([]byte, 8)) // cancelled: nothing was
		return
	}
	defer leave()
	if c.write(frameOK, nil) != nil {
		return
	}
	if !s.input.isOpen() {
		c.refuse(errors.New(noStdinPipe))
		return
	}
	for {
		select {
		case f := <-frames:
			if err := s.takeSent(ctx, c, f); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// takeSent does what a frame of a sender asks for, and answers.
func (s *sessionSupervisor) takeSent(ctx context.Context, c *sessionConn, f frame) error {
	switch f.kind {
	case frameData:
		n, err := s.input.write(ctx, f.data)
		werr := c.write(frameWritten, binary.BigEndian.AppendUint64(nil, uint64(n)))
		if err != nil && ctx.Err() == nil {
			c.refuse(err)
		}
		return errors.Join(err, werr)
	case frameEOF:
		if err := s.endInput(ctx); err != nil {
			return err
		}
		return c.write(frameOK, nil)
	}
	return errors.New("a frame of no known kind")
}

// endInput ends the command's input. Preconditions: the turn is the caller's.
func (s *sessionSupervisor) endInput(ctx context.Context) error {
	defer s.change(func(st *sessiondir.Status) { st.StdinOpen = s.input.isOpen() })
	return s.input.end(ctx)
}

// serveControl does what a connection asks for; it is kept open until the
// session has ended.
func (s *sessionSupervisor) serveControl(c *sessionConn) {
	for {
		f, err := c.read()
		if err != nil {
			return
		}
		var order stopOrder
		switch {
		case f.kind == frameSignal:
			err = s.signal(string(f.data))
		case f.kind == frameStop:
			if err = json.Unmarshal(f.data, &order); err == nil {
				s.stop(order)
			}
		default:
			err = errors.New("a frame of no known kind")
		}
		if err != nil {
			c.refuse(err)
			return
		}
		if c.write(frameOK, nil) != nil {
			return
		}
	}
}

func (s *sessionSupervisor) signal(name string) error {
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		return errors.New("no signal " + name)
	}
	s.p.signal(sig)
	return nil
}

// stop asks the command and its group to end, and kills them when the grace
// time has passed, that of whichever order is up first.
func (s *sessionSupervisor) stop(o stopOrder) {
	s.change(func(st *sessiondir.Status) {
		st.State = sessiondir.Stopping
		if s.stopping == nil || s.stopping.Failure == "" {
			s.stopping = &o
		}
	})
	s.p.signal(unix.SIGTERM)
	s.p.signal(unix.SIGCONT) // who is stopped cannot end
	time.AfterFunc(time.Duration(o.GraceNS), s.p.kill)
}

// awaitGroup waits, if the session was told to stop, until the command's group
// has ended too, or was killed. Preconditions: the command has ended and was not
// reaped, so that the group's number is its own.
func (s *sessionSupervisor) awaitGroup() {
	s.mu.Lock()
	stopping := s.stopping
	s.mu.Unlock()
	if stopping == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(stopping.GraceNS))
	defer cancel()
	for groupLives(s.p.pid) {
		if pause(ctx, groupPoll) != nil {
			s.p.kill()
			return
		}
	}
}

// groupPoll is how often it is looked whether a group that was told to end has.
const groupPoll = 20 * time.Millisecond

// resize tells the terminal's size. The first time for somebody who attaches,
// the size changes once more than that, so that the command paints everything
// anew.
func (s *sessionSupervisor) resize(rows, cols uint16, repaint bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.cols = uint32(rows), uint32(cols)
	if !repaint || rows < 2 {
		_ = s.files.resize(&wire.WindowSize{Rows: s.rows, Cols: s.cols}) // the command may have ended
		return
	}
	_ = s.files.resize(&wire.WindowSize{Rows: s.rows - 1, Cols: s.cols})
	time.AfterFunc(repaintTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = s.files.resize(&wire.WindowSize{Rows: s.rows, Cols: s.cols})
	})
}

// repaintTime is what a command gets to notice that the size has changed,
// before it changes back.
const repaintTime = 30 * time.Millisecond
