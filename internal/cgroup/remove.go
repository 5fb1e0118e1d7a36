package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// removeDir removes a group that need not be there, when what runs in it has been
// killed and has gone, or fails when ctx ends. A process may be in its group for a
// moment after whoever waited for its end was told of it.
func removeDir(ctx context.Context, dir string) error {
	if err := rmdir(dir); !errors.Is(err, unix.EBUSY) {
		return err
	}
	// Watched first: what goes after that is told of.
	w, err := watchEvents(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	defer context.AfterFunc(ctx, func() { _ = w.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		// A kernel before 5.14 lacks the file; there it is waited for alone.
		err := write(filepath.Join(dir, "cgroup.kill"), "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := w.SetReadDeadline(time.Now().Add(killAgain)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", unix.EBUSY, context.Cause(ctx))
		}
		if _, err := w.Read(make([]byte, 4<<10)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
}

// killAgain is how long after a kill those who are there still are killed once
// more: before Linux 6.14 (b69bb476dee9, "cgroup: fix race between fork and
// cgroup.kill") a process that forks meanwhile may leave a child that was not.
const killAgain = 100 * time.Millisecond

// watchEvents returns a file from which something can be read when a process has
// left dir empty: the kernel tells of changes to cgroup.events.
func watchEvents(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	path := filepath.Join(dir, "cgroup.events")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	return f, nil
}
