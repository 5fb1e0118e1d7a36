package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is how long another daemon may be at work, which takes
// milliseconds.
const lockTime = 20 * time.Second

// alone calls f with the connection to the kernel while no other call of any daemon
// on this host is at work.
func (n *Network) alone(ctx context.Context, f func(*conn) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	unlock, err := lockHost(ctx, n.lock)
	if err != nil {
		return err
	}
	defer unlock()
	return n.use(f)
}

// lockHost takes the lock of all daemons, for whoever has the file at path
// open. The file stays: removing it would let two have the lock.
func lockHost(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTime, fmt.Errorf("lock %s: another daemon holds it for %s", path, lockTime))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
