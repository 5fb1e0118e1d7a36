// Package transport connects to the agent in a guest, over whichever byte
// stream the machine's VMM gives.
//
// A connection is made in three steps: open the byte stream, greet the agent
// until it echoes (package wire says why), and speak HTTP/2. Everything goes
// over that one connection; it is never made anew behind the caller's back,
// for on a single byte stream a second one ends the first.
//
// What comes from the guest is hostile: everything before the echo is dropped
// within a limit, messages and headers are bounded, and what a stream may send
// unread is its own small window.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
)

// Dialer implements [guest.Dialer]. The zero value is ready for use.
type Dialer struct{}

var _ guest.Dialer = Dialer{}

const (
	// firstRetry and lastRetry are the times between two attempts to open a
	// stream: short, for the guest is about to be there, and doubling.
	firstRetry = 2 * time.Millisecond
	lastRetry  = 20 * time.Millisecond
	// infoLimit bounds the first answer of an agent that has echoed. One that
	// ended in between is dialled again.
	infoLimit = 10 * time.Second
)

// Dial implements [guest.Dialer]. Errors that time does not mend end it before
// ctx does: an endpoint that makes no sense, a guest that sends much but no
// echo. If ctx ends, the error wraps both its cause and what went wrong last.
func (Dialer) Dial(ctx context.Context, e guest.Endpoint) (guest.Agent, error) {
	if _, err := wire.NewScanner(e.Token); err != nil {
		return nil, fmt.Errorf("dial agent: %w", err)
	}
	open, err := opener(e)
	if err != nil {
		return nil, fmt.Errorf("dial agent: %w", err)
	}
	wait := firstRetry
	for {
		a, err := attempt(ctx, open, e)
		if err == nil {
			return a, nil
		}
		var final *finalError
		if errors.As(err, &final) {
			return nil, fmt.Errorf("dial agent: %w", err)
		}
		if pause(ctx, wait) != nil {
			if cause := context.Cause(ctx); !errors.Is(err, cause) {
				err = fmt.Errorf("%w: %w", cause, err)
			}
			return nil, fmt.Errorf("dial agent: %w", err)
		}
		wait = min(2*wait, lastRetry)
	}
}

// finalError is an error that another attempt would meet again.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// An opening opens the byte stream of one endpoint.
type opening func(ctx context.Context) (net.Conn, error)

func opener(e guest.Endpoint) (opening, error) {
	switch e.Kind {
	case "serial":
		return func(ctx context.Context) (net.Conn, error) { return openUnix(ctx, e.Path) }, nil
	case "vsock-unix":
		return func(ctx context.Context) (net.Conn, error) { return openHybrid(ctx, e.Path, e.Port) }, nil
	case "vsock":
		return func(ctx context.Context) (net.Conn, error) { return openVsock(ctx, e.CID, e.Port) }, nil
	}
	return nil, errkind.New(errkind.Internal, "no way to an endpoint of kind %q", e.Kind)
}

// attempt opens a stream, greets, and has the agent answer.
func attempt(ctx context.Context, open opening, e guest.Endpoint) (guest.Agent, error) {
	raw, err := open(ctx)
	if err != nil {
		return nil, err
	}
	if e.Still != nil {
		if err := e.Still(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
	}
	c, err := greet(ctx, raw, e.Token)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	a, err := newAgent(ctx, c)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if err := a.verify(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// pause waits for d, or until ctx ends and returns why.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
