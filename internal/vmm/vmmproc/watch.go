package vmmproc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Watch tells when a process ends, a child of ours or not. It takes no thread
// of the operating system while it waits, as [os.Process.Wait] does: a pidfd is
// readable once its process has ended.
type Watch struct{ pidfd *os.File }

// NewWatch watches the process that has this pid now.
func NewWatch(pid int) (*Watch, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return &Watch{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Wait waits until the process has ended or the watch is closed. It reports
// whether the process has ended; that of a child may be unreaped yet.
func (w *Watch) Wait() (ended bool) {
	raw, err := w.pidfd.SyscallConn()
	if err != nil {
		return false // closed
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = n > 0
		return ended || (err != nil && !errors.Is(err, unix.EINTR))
	})
	return err == nil && ended
}

// Close ends the watch, and Wait with it; the process goes on. It may be called
// twice.
func (w *Watch) Close() { w.pidfd.Close() }
