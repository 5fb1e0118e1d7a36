package vmmproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"banger/internal/hostcmd"
)

// endTimeout is how long a VMM that closed its connection may take to end.
const endTimeout = 2 * time.Second

// ErrExited says that a VMM ended before it did what was waited for.
var ErrExited = errors.New("it ended at once")

// A Child is a VMM that we started and must reap. Its methods may be called
// concurrently.
type Child struct {
	PID   int
	gone  chan struct{}    // closed when it has been reaped
	state *os.ProcessState // set before gone is closed; nil if it is not known
}

// Start starts a process and reaps it in the background, whenever that is.
func Start(c hostcmd.Detached) (*Child, error) {
	p, err := c.Start()
	if err != nil {
		return nil, err
	}
	ch := &Child{PID: p.Pid, gone: make(chan struct{})}
	go func() {
		defer close(ch.gone)
		if w, err := NewWatch(p.Pid); err == nil { // else Wait alone waits
			w.Wait()
			w.Close()
		}
		if state, err := p.Wait(); err == nil {
			ch.state = state
		}
	}()
	return ch, nil
}

// Gone is closed when the child has ended and was reaped.
func (c *Child) Gone() <-chan struct{} { return c.gone }

// While returns a context that ends with ctx, or with [ErrExited] when the
// child does. The caller must call stop.
func (c *Child) While(ctx context.Context) (while context.Context, stop func()) {
	while, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.gone:
			cancel(ErrExited)
		case <-while.Done():
		}
	}()
	return while, func() { cancel(nil); <-watched }
}

// AwaitEnd gives a child whose connection broke the time to end, which it does
// if it listened before it met what stops it, such as a kernel that is missing.
func (c *Child) AwaitEnd(ctx context.Context) {
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Explain returns err, or if the child has ended, how it did and what it said.
func (c *Child) Explain(err error, said func() string) error {
	select {
	case <-c.gone:
	default:
		return err
	}
	how := ErrExited.Error()
	if c.state != nil {
		how = c.state.String()
	}
	if words := said(); words != "" {
		return fmt.Errorf("%s: %s", how, words)
	}
	return errors.New(how)
}
