package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/vmm"
)

// dialEvery is how often a VMM that is starting is asked whether it listens
// yet. It takes about 20 ms.
const dialEvery = time.Millisecond

// endTimeout is how long a VMM that closed its connection may take to end.
const endTimeout = 2 * time.Second

// Launch starts QEMU and returns when QMP answers; see [vmm.Driver].
func (d *Driver) Launch(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	m, err := d.launch(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("launch QEMU: %w", err)
	}
	return m, nil
}

func (d *Driver) launch(ctx context.Context, s vmm.Spec) (*machine, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	path, err := d.binary()
	if err != nil {
		return nil, err
	}
	h, err := d.host(ctx, s.VCPUs)
	if err != nil {
		return nil, err
	}
	args, err := commandLine(s, h)
	if err != nil {
		return nil, err
	}
	if err := checkUnused(ctx, s.APISock); err != nil {
		return nil, err
	}
	console, words, err := prepareLogs(s)
	if err != nil {
		return nil, err
	}
	defer words.Close()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	taps, err := openTaps(s.NICs)
	if err != nil {
		return nil, err
	}
	defer closeAll(taps)
	child, err := start(hostcmd.Detached{
		Argv: append([]string{path}, args...),
		Dir:  s.Dir,
		// Nothing of the caller's: HOME would be that of another user.
		Env:        []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin"},
		LogFile:    words.File,
		Files:      taps,
		Credential: &hostcmd.Credential{UID: s.UID, GID: s.UID, Groups: d.accel.groups()},
	})
	if err != nil {
		return nil, err
	}
	m, err := child.connect(ctx, s, console)
	if err != nil {
		return nil, child.explain(err, s.VMMLog, words.from)
	}
	return m, nil
}

// host tells what a command line depends on.
func (d *Driver) host(ctx context.Context, vcpus int) (host, error) {
	h := host{accel: d.accel}
	if d.accel != TCG {
		return h, nil
	}
	var err error
	if h.tscKHz, err = d.tsc.rate(ctx); err != nil {
		return h, err
	}
	if vcpus > 1 {
		p, err := d.probe(ctx)
		if err != nil {
			return h, err
		}
		h.racyTCG = racyTCG(p.version)
	}
	return h, nil
}

// Attach connects to a QEMU that an earlier daemon launched; see
// [vmm.Driver].
func (d *Driver) Attach(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	conn, err := dial(ctx, s.APISock)
	if err != nil {
		return nil, fmt.Errorf("attach to QEMU: %w", err)
	}
	// Where this boot's part of the console begins is not known any more.
	m, err := newMachine(ctx, conn, s, 0)
	if err != nil {
		return nil, fmt.Errorf("attach to QEMU: %w", err)
	}
	return m, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// checkUnused reports a VMM that listens at path: another one would take its
// socket from it.
func checkUnused(ctx context.Context, path string) error {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil // nobody, which is what is wanted
	}
	conn.Close()
	return errkind.New(errkind.Conflict, "a VMM listens at %s already", path)
}

// A child is a QEMU that we started and must reap.
type child struct {
	pid   int
	gone  chan struct{}    // closed when it has been reaped
	state *os.ProcessState // set before gone is closed; nil if it is not known
}

// start starts a process and reaps it in the background, whenever that is.
func start(c hostcmd.Detached) (*child, error) {
	p, err := c.Start()
	if err != nil {
		return nil, err
	}
	ch := &child{pid: p.Pid, gone: make(chan struct{})}
	go func() {
		defer close(ch.gone)
		awaitExit(p.Pid)
		if state, err := p.Wait(); err == nil {
			ch.state = state
		}
	}()
	return ch, nil
}

// awaitExit waits until a child of ours has ended, if it can without holding
// a thread of the operating system for each machine, as [os.Process.Wait]
// does: a pidfd is readable once its process has ended.
func awaitExit(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	// An error: Wait waits instead.
	_ = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
}

// errExited says that QEMU ended before QMP answered.
var errExited = errors.New("it ended at once")

// connect waits until the child's QMP answers, the child has ended, or ctx
// ends. This boot's part of the console log begins at console.
func (c *child) connect(ctx context.Context, s vmm.Spec, console int64) (*machine, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	defer func() { cancel(nil); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-c.gone:
			cancel(errExited)
		case <-ctx.Done():
		}
	}()
	conn, err := dialUntil(ctx, s.APISock)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(ctx, conn, s, console)
	if err != nil {
		c.awaitEnd(ctx)
		return nil, err
	}
	if m.pid != c.pid {
		m.Close()
		return nil, fmt.Errorf("process %d, not QEMU (%d), listens at %s", m.pid, c.pid, s.APISock)
	}
	return m, nil
}

// awaitEnd gives a child whose connection broke the time to end, which it does
// if it listened before it met what stops it, such as a kernel that is missing.
func (c *child) awaitEnd(ctx context.Context) {
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-c.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// dialUntil dials until somebody listens or ctx ends.
func dialUntil(ctx context.Context, path string) (net.Conn, error) {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		conn, err := dial(ctx, path)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// explain adds to err what the child said and how it ended, if it has.
func (c *child) explain(err error, log string, from int64) error {
	select {
	case <-c.gone:
	default:
		return err
	}
	how := "it ended at once"
	if c.state != nil {
		how = c.state.String()
	}
	if said := lastWords(log, from); said != "" {
		return fmt.Errorf("%s: %s", how, said)
	}
	return errors.New(how)
}
