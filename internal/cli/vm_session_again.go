package cli

import (
	"context"
	"errors"
	"io"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const (
	// againWithin is how long a daemon, or the agent in a machine, that went
	// away under a call that goes on for long is waited for.
	againWithin = 60 * time.Second
	// firstWait and longestWait are the times between two attempts.
	firstWait   = 50 * time.Millisecond
	longestWait = 2 * time.Second
	// heldFor is how long a call has to have gone on for its end to be a new
	// one.
	heldFor = time.Second
)

// again makes a call that goes on for long, and makes it anew where the daemon
// or the agent went away under it: it knows by itself where to go on. It calls
// came when it has got through. Say is told a line for people.
func (a *app) again(ctx context.Context, p *progress, say func(string), call func(ctx context.Context, c *client.Client, came func()) error) error {
	var got time.Time  // when the last attempt got through; zero: it did not
	var lost time.Time // since when none did
	ever := false
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		got = time.Time{}
		err := a.attempt(ctx, p, ever, call, func() {
			if got.IsZero() {
				got, ever = time.Now(), true
			}
		})
		if err == nil || ctx.Err() != nil || !wentAway(err, ever) {
			return err
		}
		if !got.IsZero() && time.Since(got) > heldFor {
			lost = time.Time{}
		}
		switch {
		case lost.IsZero():
			lost, wait = time.Now(), firstWait
			if !a.quiet {
				say(err.Error() + "; connecting again")
			}
		case time.Since(lost) > againWithin:
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// attempt makes the call once, with a connection of its own.
func (a *app) attempt(ctx context.Context, p *progress, ever bool, call func(context.Context, *client.Client, func()) error, came func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of what has not ended
	c, err := a.connect(ctx, p)
	if err != nil {
		if ever {
			return &awayError{err}
		}
		return err
	}
	defer c.Close()
	return call(ctx, c, came)
}

// awayError says that there is no daemon now, where there was one.
type awayError struct{ error }

func (e *awayError) Unwrap() error { return e.error }

// errBrokenOff says that a call ended that should have gone on.
var errBrokenOff = errkind.New(errkind.Internal, "the daemon ended the call before the session had ended")

// wentAway reports whether err is that the other end went away, and may come
// back; ever, that the call got through at some time.
func wentAway(err error, ever bool) bool {
	var away *awayError
	switch _, silent := exitCode(err); {
	case silent || isOutput(err):
		return false
	case errors.As(err, &away), errors.Is(err, api.ErrLost), errors.Is(err, io.EOF):
		return true
	}
	// What the daemon cannot tell a reason for is that it lost the agent.
	return ever && errkind.Of(err) == errkind.Internal
}

// seen is how far in each stream of a session we have come: so many bytes,
// plus 1. A stream that is not in it had nothing to show.
type seen map[string]int64

// next returns what of the data is new, and takes note of it. Since is what had
// been seen when the call began that the data came with.
func (s seen) next(since seen, stream string, offset int64, data []byte, mark bool) []byte {
	if mark {
		return data
	}
	if n, ok := since[stream]; ok && offset < n-1 {
		data = data[min(n-1-offset, int64(len(data))):]
		offset = n - 1
	}
	s[stream] = offset + int64(len(data)) + 1
	return data
}
