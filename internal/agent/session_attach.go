package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

type attachStream = connect.BidiStream[wire.AttachSessionRequest, wire.AttachSessionResponse]

// AttachSession implements the method of the protocol.
func (s service) AttachSession(ctx context.Context, st *attachStream) error {
	first, err := st.Receive()
	if err != nil {
		return orInvalid(err, "an attach without a start")
	}
	start := first.GetStart()
	if start == nil {
		return invalid(errors.New("an attach without a start"))
	}
	now, err := s.sessions.get(start.Id)
	if err != nil {
		return err
	}
	x := &attachment{s: s.sessions, start: start, st: st, window: make(chan struct{}, attachWindow)}
	if !sessiondir.State(now.State).Final() {
		err := x.hold(ctx)
		var refused refusedError
		if errors.As(err, &refused) {
			return x.send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Refused{Refused: refused.why}})
		}
		if err != nil && !x.over() {
			return err
		}
	}
	if x.c != nil {
		defer x.c.Close()
	}
	if err := x.send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Attached{Attached: now}}); err != nil {
		return err
	}
	return x.run(ctx)
}

// An attachment is one call of AttachSession.
type attachment struct {
	s     *sessions
	start *wire.AttachStart
	c     *sessionConn // to the supervisor; nil: the session has ended

	window chan struct{} // holds one for each piece of input on its way

	mu sync.Mutex // one Send at a time
	st *attachStream
}

func (x *attachment) send(r *wire.AttachSessionResponse) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.st.Send(r)
}

// over reports whether the session has ended.
func (x *attachment) over() bool {
	now, err := x.s.get(x.start.Id)
	return err == nil && sessiondir.State(now.State).Final()
}

// hold joins us to the session's input.
func (x *attachment) hold(ctx context.Context) error {
	c, err := x.s.reach(ctx, x.start.Id, hello{
		Purpose: purposeAttach, Name: x.start.Name, Take: x.start.Take, ReadOnly: x.start.ReadOnly,
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	if _, err := c.answer(); err != nil {
		return errors.Join(err, c.Close())
	}
	x.c = c
	return x.resize(x.start.Size)
}

func (x *attachment) resize(size *wire.WindowSize) error {
	if size == nil {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(min(size.Rows, math.MaxUint16)))
	b = binary.BigEndian.AppendUint16(b, uint16(min(size.Cols, math.MaxUint16)))
	return x.c.write(frameResize, b)
}

// takenError says by whom our place was taken.
type takenError struct{ by string }

func (e *takenError) Error() string { return "taken by " + e.by }

// run carries output and input until the session has ended, or somebody takes
// our place.
func (x *attachment) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if x.c != nil {
		go func() {
			if err := x.receive(ctx); err != nil {
				cancel(err)
			}
		}()
		go x.awaitTaken(cancel)
	}
	err := x.output(ctx)
	var taken *takenError
	if errors.As(context.Cause(ctx), &taken) {
		return x.send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Taken{Taken: taken.by}})
	}
	if err != nil {
		return err
	}
	end, err := x.s.get(x.start.Id)
	if err != nil {
		return err
	}
	return x.send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Ended{Ended: end}})
}

// output sends what the session wrote and writes, both streams at once, until
// it has ended.
func (x *attachment) output(ctx context.Context) error {
	streams := []sessiondir.Stream{sessiondir.Stdout, sessiondir.Stderr}
	from := []int64{x.start.FromStdout, x.start.FromStderr}
	errs := make([]error, len(streams))
	var both sync.WaitGroup
	for i, stream := range streams {
		both.Go(func() {
			q := sessiondir.Query{Streams: []sessiondir.Stream{stream}, Tail: int(x.start.Tail)}
			if from[i] > 0 {
				q.From = map[sessiondir.Stream]int64{stream: from[i] - 1}
			}
			errs[i] = x.s.follow(ctx, x.start.Id, q, func(c sessiondir.Chunk) error {
				return x.send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Output{Output: c.Wire()}})
			})
		})
	}
	both.Wait()
	return errors.Join(errs...)
}

// awaitTaken notes what was taken of the input, and cancels when our place was.
func (x *attachment) awaitTaken(cancel context.CancelCauseFunc) {
	for {
		f, err := x.c.answer()
		if err != nil {
			return // the session has ended, or we have
		}
		switch f.kind {
		case frameWritten:
			select {
			case <-x.window:
			default:
			}
		case frameTaken:
			cancel(&takenError{oneLine(errors.New(string(f.data)))})
			return
		}
	}
}

// receive hands what the client sends to the supervisor, until there is no
// more. An error means that the client has gone.
func (x *attachment) receive(ctx context.Context) error {
	for {
		req, err := x.st.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.pass(ctx, req); err != nil {
			return nil // the supervisor has gone, or we have
		}
	}
}

func (x *attachment) pass(ctx context.Context, req *wire.AttachSessionRequest) error {
	switch m := req.GetMsg().(type) {
	case *wire.AttachSessionRequest_Stdin:
		for data := m.Stdin; len(data) > 0; {
			n := min(len(data), maxFrame)
			if err := x.input(ctx, frameData, data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
	case *wire.AttachSessionRequest_CloseStdin:
		return x.input(ctx, frameEOF, nil)
	case *wire.AttachSessionRequest_Resize:
		return x.resize(m.Resize)
	case *wire.AttachSessionRequest_Signal:
		return x.c.write(frameSignal, []byte(m.Signal))
	}
	return nil
}

// input sends a piece of input when there is room for it.
func (x *attachment) input(ctx context.Context, kind byte, data []byte) error {
	select {
	case x.window <- struct{}{}:
		return x.c.write(kind, data)
	case <-ctx.Done():
		return ctx.Err()
	}
}
