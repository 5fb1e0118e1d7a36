package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

type sendStream = connect.ClientStream[wire.SendSessionRequest]

// SendSession implements the method of the protocol.
func (s service) SendSession(ctx context.Context, st *sendStream) (*connect.Response[wire.SendSessionResponse], error) {
	if !st.Receive() {
		return nil, orInvalid(st.Err(), "a send without a start")
	}
	start := st.Msg().GetStart()
	if start == nil {
		return nil, invalid(errors.New("a send without a start"))
	}
	if err := checkID(start.Id); err != nil {
		return nil, err
	}
	if start.TimeoutNs > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(start.TimeoutNs))
		defer cancel()
	}
	x := &sending{s: s.sessions, start: start, data: received(ctx, st)}
	return x.run(ctx)
}

// A sending is one call of SendSession.
type sending struct {
	s     *sessions
	start *wire.SendStart
	data  <-chan piece
	c     *sessionConn // nil: there was nothing to send yet
	turn  bool         // it is ours, so the supervisor said
	n     int64        // bytes written
}

// A piece is what a stream gave next.
type piece struct {
	data []byte
	err  error // io.EOF: there is no more
}

// received gives what comes on a stream, until its end or that of ctx.
func received(ctx context.Context, st *sendStream) <-chan piece {
	c := make(chan piece)
	go func() {
		for st.Receive() {
			select {
			case c <- piece{data: st.Msg().GetData()}:
			case <-ctx.Done():
				return
			}
		}
		err := st.Err()
		if err == nil {
			err = io.EOF
		}
		select {
		case c <- piece{err: err}:
		case <-ctx.Done():
		}
	}()
	return c
}

// run sends all, or as much as the command reads before ctx ends.
func (x *sending) run(ctx context.Context) (*connect.Response[wire.SendSessionResponse], error) {
	defer func() {
		if x.c != nil {
			x.c.Close()
		}
	}()
	err := x.sendAll(ctx)
	res := &wire.SendSessionResponse{BytesWritten: x.n}
	var refused refusedError
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded): // a dial may know it first
		res.TimedOut = true
	case ctx.Err() != nil:
		return nil, connect.NewError(connect.CodeCanceled, ctx.Err())
	case errors.As(err, &refused):
		res.Refused = refused.why
	default:
		why, lookErr := x.refusal()
		if connect.CodeOf(lookErr) == connect.CodeNotFound {
			return nil, lookErr
		}
		if res.Refused = why; why == "" {
			return nil, err
		}
	}
	return connect.NewResponse(res), nil
}

// refusal looks what keeps the session from being sent to; empty: nothing does.
func (x *sending) refusal() (string, error) {
	now, err := x.s.get(x.start.Id)
	if err != nil {
		return "", err
	}
	return refusal(now), nil
}

// sendAll sends what comes, and then the end if it was asked for. What keeps a
// session from being sent to is looked at where its supervisor did not take it:
// mostly nothing does.
func (x *sending) sendAll(ctx context.Context) error {
	for {
		var p piece
		select {
		case p = <-x.data:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err == io.EOF {
			break
		}
		if p.err != nil {
			return p.err
		}
		if err := x.send(ctx, p.data); err != nil {
			return err
		}
	}
	if x.c == nil && !x.start.CloseStdin {
		why, err := x.refusal()
		if err == nil && why != "" {
			err = refusedError{why}
		}
		return err
	}
	if !x.start.CloseStdin {
		return nil
	}
	if err := x.write(ctx, frameEOF, nil); err != nil {
		return err
	}
	f, err := x.answer()
	if err == nil && f.kind != frameOK {
		err = context.Cause(ctx) // the turn never came
	}
	return err
}

// write writes a frame to the supervisor, which does with it as soon as the turn
// is ours.
func (x *sending) write(ctx context.Context, kind byte, data []byte) (err error) {
	if x.c == nil {
		if x.c, err = x.s.reach(ctx, x.start.Id, hello{Purpose: purposeSend}); err != nil {
			return err
		}
		context.AfterFunc(ctx, x.cancel)
	}
	return x.c.write(kind, data)
}

// answer reads the supervisor's answer to what was written last.
func (x *sending) answer() (frame, error) {
	f, err := x.c.answer()
	if err != nil || x.turn || f.kind != frameOK {
		return f, err
	}
	x.turn = true
	return x.c.answer()
}

// cancel has the supervisor give up what it is writing, and say how much it
// wrote.
func (x *sending) cancel() {
	_ = x.c.write(frameCancel, nil)
	x.c.SetReadDeadline(time.Now().Add(cancelTime))
}

// cancelTime is what a supervisor gets to say how much it wrote.
const cancelTime = time.Second

// send sends one piece.
func (x *sending) send(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		part := data[:min(len(data), maxFrame)]
		if err := x.write(ctx, frameData, part); err != nil {
			return err
		}
		f, err := x.answer()
		if err != nil {
			return err
		}
		n, err := f.written()
		x.n += n
		if err != nil {
			return err
		}
		if n < int64(len(part)) {
			_, err := x.c.answer() // why, unless it was cancelled
			return errors.Join(err, io.ErrShortWrite)
		}
		data = data[len(part):]
	}
	return nil
}
