package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"banger/internal/guest/wire"
)

// sizePoll is how long to wait for the kernel to announce a disk's new size
// until it is looked at anyway.
const sizePoll = 50 * time.Millisecond

// Grow implements the method of [System].
func (guestSystem) Grow(ctx context.Context, m wire.Mount) error {
	events, err := listenUevents()
	if err != nil {
		return err
	}
	defer events.Close()
	changed := deviceEvents{events}.wait
	device, err := disks{sys: "/sys/block", changed: changed}.find(ctx, m)
	if err != nil {
		return err
	}
	if err := awaitSize(ctx, device, m.SizeBytes, changed); err != nil {
		return err
	}
	return withTree(func(t *tree) error {
		dir, err := t.openDir(m.Target, 0o755)
		if err != nil {
			return err
		}
		defer dir.Close()
		growOrSay(device, m.FSType, fdPath(dir))
		return nil
	})
}

// awaitSize waits until a device is as large as its disk is known to be; with 0
// it does not wait. The VMM says so, and the kernel takes it in a little later.
func awaitSize(ctx context.Context, device string, want int64, changed func(context.Context) error) error {
	for want > 0 {
		have, err := sizeOf(device)
		if err != nil || have == want {
			return err
		}
		short, cancel := context.WithTimeout(ctx, sizePoll)
		err = changed(short)
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for %s of %d bytes to have %d: %w", device, have, want, err)
		}
	}
	return nil
}

func sizeOf(device string) (int64, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", device, err)
	}
	return size, nil
}
