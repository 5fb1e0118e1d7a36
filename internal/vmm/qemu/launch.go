package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/hostcmd"
	"banger/internal/trace"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

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
	h, err := d.host(ctx)
	if err != nil {
		return nil, err
	}
	if err := vmmproc.CheckUnused(ctx, s.APISock); err != nil {
		return nil, err
	}
	opened, err := d.open(s, &h)
	if err != nil {
		return nil, err
	}
	defer closeAll(opened)
	args, err := commandLine(s, h)
	if err != nil {
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
	spawned := trace.Span(ctx, trace.VMM, "spawn")
	child, err := vmmproc.Start(hostcmd.Detached{
		Argv: append([]string{path}, args...),
		Dir:  s.Dir,
		// Nothing of the caller's: HOME would be that of another user.
		Env:        []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin"},
		LogFile:    words.File,
		Files:      opened,
		Cgroup:     s.Cgroup,
		Idle:       s.Idle,
		Credential: &hostcmd.Credential{UID: s.UID, GID: s.UID, Groups: d.accel.groups()},
	})
	spawned()
	if err != nil {
		return nil, err
	}
	m, err := connect(ctx, child, s, console)
	if err == nil && s.Restore != nil {
		if err = m.restore(ctx, child); err != nil {
			m.Close()
		}
	}
	if err != nil {
		return nil, child.Explain(err, func() string { return vmmproc.LastWords(s.VMMLog, words.From) })
	}
	return m, nil
}

// open opens what QEMU is given open, in the order of its descriptors, and notes
// in h what that settles: on many hosts QEMU's user could not open it.
func (d *Driver) open(s vmm.Spec, h *host) ([]*os.File, error) {
	files, err := openTaps(s.NICs)
	if err == nil && d.vsock {
		var f *os.File
		if f, h.cid, err = openVsock(s.VsockCID); err == nil {
			files = append(files, f)
		}
	}
	if err == nil && (s.Restore != nil || s.FreezeTo != nil) {
		var f *os.File
		if f, err = d.openMemory(s); err == nil {
			h.ramFD = firstTapFD + len(files)
			files = append(files, f)
		}
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// openMemory opens what is the guest's memory, where that is a file.
func (d *Driver) openMemory(s vmm.Spec) (*os.File, error) {
	if s.Restore != nil {
		return d.memories.open(s.Restore.RAM, s.MemoryBytes)
	}
	f, err := os.OpenFile(s.FreezeTo.RAM, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	// QEMU opens it anew, by its descriptor: it must be its own.
	if err := errors.Join(f.Chown(int(s.UID), int(s.UID)), f.Truncate(s.MemoryBytes)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// host tells what a command line depends on.
func (d *Driver) host(ctx context.Context) (host, error) {
	h := host{accel: d.accel}
	if d.accel != TCG {
		return h, nil
	}
	var err error
	if h.tscKHz, err = d.tsc.rate(ctx); err != nil {
		return h, err
	}
	p, err := d.probe(ctx)
	if err != nil {
		return h, err
	}
	h.racyTCG, h.retranslates = racyTCG(p.version), retranslates(p.version)
	return h, nil
}

// Attach connects to a QEMU that an earlier daemon launched; see
// [vmm.Driver].
func (d *Driver) Attach(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	conn, err := vmmproc.Dial(ctx, s.APISock)
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

// connect waits until the child's QMP answers, the child has ended, or ctx
// ends. This boot's part of the console log begins at console.
func connect(ctx context.Context, c *vmmproc.Child, s vmm.Spec, console int64) (*machine, error) {
	defer trace.Span(ctx, trace.VMM, "API up")()
	ctx, stop := c.While(ctx)
	defer stop()
	conn, err := vmmproc.DialUntil(ctx, s.APISock)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(ctx, conn, s, console)
	if err != nil {
		c.AwaitEnd(ctx)
		return nil, err
	}
	if m.pid != c.PID {
		m.Close()
		return nil, fmt.Errorf("process %d, not QEMU (%d), listens at %s", m.pid, c.PID, s.APISock)
	}
	return m, nil
}

// prepareLogs makes the console's log and the VMM's for one boot. The
// console's, of which this boot's part begins at consoleFrom, is opened by
// QEMU itself, as the machine's user. That of the VMM is of the caller's user
// and stays open, for QEMU to be given; the caller closes it.
func prepareLogs(s vmm.Spec) (consoleFrom int64, words vmmproc.OpenedLog, err error) {
	console, err := vmmproc.PrepareLog(s.ConsoleLog, int(s.UID))
	if err != nil {
		return 0, vmmproc.OpenedLog{}, fmt.Errorf("console log: %w", err)
	}
	console.Close()
	words, err = vmmproc.PrepareLog(s.VMMLog, os.Geteuid())
	if err != nil {
		return 0, vmmproc.OpenedLog{}, fmt.Errorf("VMM log: %w", err)
	}
	return console.From, words, nil
}
