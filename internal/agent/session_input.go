package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// A sessionInput is the input of a session's command. Who sends has it to
// himself until he has sent all, and others wait for their turn.
type sessionInput struct {
	turn  chan struct{} // holds one while nobody has the turn
	files *stdio

	mu   sync.Mutex
	open bool // guarded by mu
}

func newSessionInput(files *stdio) *sessionInput {
	in := &sessionInput{turn: make(chan struct{}, 1), files: files, open: files.input != nil}
	in.turn <- struct{}{}
	return in
}

// begin waits for the turn, which leave gives back.
func (in *sessionInput) begin(ctx context.Context) (leave func(), err error) {
	select {
	case <-in.turn:
		return func() { in.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errNoInput says that a command takes no more input.
var errNoInput = errors.New("the command takes no more input")

// write writes b, until ctx ends, and returns how much of it was written.
// Preconditions: the turn is the caller's.
func (in *sessionInput) write(ctx context.Context, b []byte) (int, error) {
	if !in.isOpen() {
		return 0, errNoInput
	}
	f := in.files.input
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)); close(cut) })
	n, err := f.Write(b)
	if !stop() {
		<-cut // it was begun, and must not come after this
		f.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() != nil:
		return n, context.Cause(ctx)
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EIO), errors.Is(err, os.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return n, errNoInput
	}
	return n, err
}

// end ends the input. A terminal stays open: the end is typed, each time.
// Preconditions: the turn is the caller's.
func (in *sessionInput) end(ctx context.Context) error {
	if in.files.tty != nil {
		const endOfTransmission = 4
		_, err := in.write(ctx, []byte{endOfTransmission})
		return err
	}
	in.files.closeInput()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open = false
	return nil
}

func (in *sessionInput) isOpen() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open
}
