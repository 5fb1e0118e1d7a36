package handle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// process is one process, held by a pidfd. It is a vmm.Process.
type process struct {
	pid   int
	start uint64
	f     *os.File // the pidfd, non-blocking
}

// hold opens a process and then looks whether it is the right one; only if it
// lives after that is what was read true of it, and not of an earlier owner
// of its pid. The error is errNotOurs if it is not.
func hold(pid int, uid uint32, right func(info) bool) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case err == unix.ESRCH || err == unix.EINVAL: // gone, or a thread
		return nil, errNotOurs
	case err != nil:
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid: pid, f: os.NewFile(uintptr(fd), "pidfd")}
	i, err := look(pid, uid)
	switch {
	case errors.Is(err, errNotOurs) || err == nil && (!right(i) || gone(uintptr(fd))):
		err = errNotOurs
	case err != nil:
		err = fmt.Errorf("look at process %d: %w", pid, err)
	default:
		p.start = i.start
		return p, nil
	}
	p.f.Close()
	return nil, err
}

func (p *process) PID() int { return p.pid }

func (p *process) StartTime() uint64 { return p.start }

// Usage reads /proc. A pid that has gone to another process meanwhile would
// have another start time.
func (p *process) Usage() (vmm.Usage, error) {
	i, err := readStat(p.pid)
	if err == nil && i.start != p.start {
		err = vmm.ErrNoProcess
	}
	return i.usage, err
}

// EndIdle gives every thread the ordinary policy. What a thread starts has that
// thread's; so it looks until all have it.
func (p *process) EndIdle() error {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return fmt.Errorf("list threads of process %d: %w", p.pid, err)
	}
	defer dir.Close()
	for changed := true; changed; {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(-1)
		if err != nil {
			return fmt.Errorf("list threads of process %d: %w", p.pid, err)
		}
		changed = false
		for _, name := range names {
			did, err := endIdle(name)
			if err != nil {
				return fmt.Errorf("schedule thread %s of process %d: %w", name, p.pid, err)
			}
			changed = changed || did
		}
	}
	return nil
}

// endIdle gives a thread the ordinary policy if it has that for idle time
// (sched(7), SCHED_IDLE), and reports whether it had. One that has ended is a
// success.
func endIdle(thread string) (bool, error) {
	tid, err := strconv.Atoi(thread)
	if err != nil {
		return false, err
	}
	attr, err := unix.SchedGetAttr(tid, 0)
	if err == nil && attr.Policy == unix.SCHED_IDLE {
		err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return err == nil && attr.Policy == unix.SCHED_IDLE, err
}

func (p *process) Kill(ctx context.Context) error {
	err := p.control(func(fd uintptr) error {
		return unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return p.Wait(ctx)
}

// Wait waits on a descriptor of its own, so that each caller's context ends
// only that caller's wait.
func (p *process) Wait(ctx context.Context) error {
	var own int
	err := p.control(func(fd uintptr) (err error) {
		own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	f := os.NewFile(uintptr(own), "pidfd")
	defer f.Close()
	if gone(uintptr(own)) {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		// It fails only if Wait has returned and closed the file.
		_ = f.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Read(gone)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("wait for process %d: %w", p.pid, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	return nil
}

func (p *process) Close() error {
	if err := p.f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// control runs f on the pidfd, which cannot be closed meanwhile.
func (p *process) control(f func(fd uintptr) error) error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}

// gone reports whether the process of a pidfd has ended, every thread of it.
// A zombie has. (The state in /proc is that of the first thread, which may end
// before the others.)
func gone(fd uintptr) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && p[0].Revents != 0
		}
	}
}
