package server

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
)

// A way is what joins a caller to the agent of a machine, for one call: Q is
// what the agent takes, A what it answers.
type way[Q, A any] struct {
	open   func(context.Context) *connect.BidiStreamForClient[Q, A] // to the agent
	first  *Q                                                       // what begins the call there
	recv   func() (*Q, error)                                       // the caller's next, without what it is wrapped in
	passes func(*Q) bool                                            // whether that goes to the agent
	send   func(*A) error                                           // to the caller
	last   func(*A) bool                                            // whether an answer ends the call; nil: the stream's end does
	broken func(context.Context, error) error                       // says why the agent's stream broke
}

// relay carries messages both ways until the agent has sent its last, which is
// no error, or either end has gone. By the time that it returns, what went on
// in the machine is told to end.
func relay[Q, A any](ctx context.Context, w way[Q, A]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := w.open(ctx)
	defer up.CloseResponse() // ends what still goes on
	if err := up.Send(w.first); err != nil && !errors.Is(err, io.EOF) {
		return w.broken(ctx, err)
	}
	go func() {
		// Ends with the caller's stream, at the latest when its call returns.
		if err := w.pump(up); err != nil {
			cancel()
		}
	}()
	for {
		answer, err := up.Receive()
		if w.last == nil && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return w.broken(ctx, err)
		}
		if err := w.send(answer); err != nil {
			return err
		}
		if w.last != nil && w.last(answer) {
			return nil
		}
	}
}

// pump hands what the caller sends to the agent. An error means that the
// caller has gone.
func (w way[Q, A]) pump(up *connect.BidiStreamForClient[Q, A]) error {
	for {
		req, err := w.recv()
		if errors.Is(err, io.EOF) {
			return up.CloseRequest()
		}
		if err != nil {
			return err
		}
		if !w.passes(req) {
			continue
		}
		if err := up.Send(req); err != nil {
			return nil // the receiving side tells why
		}
	}
}
