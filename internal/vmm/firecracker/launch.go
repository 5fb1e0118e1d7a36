package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/hostcmd"
	"banger/internal/trace"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// Launch starts Firecracker and returns when it has started the guest; see
// [vmm.Driver].
func (d *Driver) Launch(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	m, err := d.launch(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("launch Firecracker: %w", err)
	}
	return m, nil
}

func (d *Driver) launch(ctx context.Context, s vmm.Spec) (*machine, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	p, err := newPlan(s)
	if err != nil {
		return nil, err
	}
	path, _, err := d.probe(ctx)
	if err != nil {
		return nil, err
	}
	if err := vmmproc.CheckKVM(); err != nil {
		return nil, err
	}
	if s.Restore == nil {
		if err := checkKernel(s.Kernel); err != nil {
			return nil, err
		}
	}
	if err := vmmproc.CheckUnused(ctx, s.APISock); err != nil {
		return nil, err
	}
	f, err := prepare(s)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	spawned := trace.Span(ctx, trace.VMM, "spawn")
	child, err := vmmproc.Start(hostcmd.Detached{
		Argv:       append([]string{path}, arguments(s)...),
		Dir:        s.Dir,
		Env:        []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", fmt.Sprint("RUST_MIN_STACK=", apiStack)},
		Output:     f.console.File,
		LogFile:    f.words.File,
		Cgroup:     s.Cgroup,
		Idle:       s.Idle,
		Credential: &hostcmd.Credential{UID: s.UID, GID: s.UID, Groups: vmmproc.KVMGroups()},
	})
	spawned()
	if err != nil {
		return nil, err
	}
	return boot(ctx, child, s, p, f.console.From)
}

// apiStack is the stack of Firecracker's API thread, in bytes (RUST_MIN_STACK,
// std::thread of Rust). It is mapped before the guest's memory and above it:
// together with the three pages that musl adds it has a size of huge pages, so
// that the guest's memory begins at one. KVM maps nothing in huge pages where it
// does not, and guests are slower for it; from Linux 6.7 on the kernel sees to
// that itself.
const apiStack = 4<<20 - 3*4096

// arguments is Firecracker's command line without the program.
func arguments(s vmm.Spec) []string {
	return []string{
		"--api-sock", s.APISock,
		"--id", instanceID(s.ID),
		"--log-path", s.VMMLog,
		"--level", "Info", "--show-level", // at which it says that it ends well
	}
}

// files are a machine's logs, open for Firecracker to be given.
type files struct{ console, words vmmproc.OpenedLog }

func (f files) Close() {
	f.console.Close()
	f.words.Close()
}

// prepare makes what must be in the file system before Firecracker starts, and
// removes what an earlier one left.
func prepare(s vmm.Spec) (files, error) {
	if err := remove(s.APISock, s.AgentSock, runLink(s)); err != nil {
		return files{}, err
	}
	if err := os.Symlink(filepath.Dir(s.AgentSock), runLink(s)); err != nil {
		return files{}, err
	}
	if s.Metrics != "" {
		m, err := prepareEmpty(s.Metrics, s.UID)
		if err != nil {
			return files{}, fmt.Errorf("metrics: %w", err)
		}
		m.Close()
	}
	console, err := vmmproc.PrepareLog(s.ConsoleLog, int(s.UID))
	if err != nil {
		return files{}, fmt.Errorf("console log: %w", err)
	}
	words, err := prepareEmpty(s.VMMLog, s.UID)
	if err != nil {
		console.Close()
		return files{}, fmt.Errorf("VMM log: %w", err)
	}
	return files{console, words}, nil
}

// prepareEmpty makes an empty file at path that is uid's: Firecracker opens it
// itself, and writes from its beginning on.
func prepareEmpty(path string, uid uint32) (vmmproc.OpenedLog, error) {
	f, err := vmmproc.PrepareLog(path, int(uid))
	if err != nil {
		return f, err
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return f, err
	}
	f.From = 0
	return f, nil
}

// boot makes a child that was just started run the machine. This boot's part of
// the console log begins at console.
func boot(ctx context.Context, child *vmmproc.Child, s vmm.Spec, p plan, console int64) (*machine, error) {
	m, err := connect(ctx, child, s, console)
	if err == nil {
		if err = m.tell(ctx, child, p); err == nil {
			return m, nil
		}
		m.Close()
	}
	if errors.Is(err, errBroken) || errors.Is(err, errClosed) || errors.Is(err, unix.ESRCH) {
		child.AwaitEnd(ctx) // these are its signs
	}
	return nil, child.Explain(err, func() string { return lastWords(s.VMMLog) })
}

// connect waits until the child's API answers.
func connect(ctx context.Context, child *vmmproc.Child, s vmm.Spec, console int64) (*machine, error) {
	defer trace.Span(ctx, trace.VMM, "API up")()
	ctx, stop := child.While(ctx)
	defer stop()
	conn, err := vmmproc.DialUntil(ctx, s.APISock)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	pid, err := vmmproc.Peer(conn, s.UID)
	if err != nil {
		return nil, err
	}
	if pid != child.PID {
		return nil, fmt.Errorf("process %d, not Firecracker (%d), listens at %s", pid, child.PID, s.APISock)
	}
	return newMachine(pid, s, console)
}

// tell tells the child what to run.
func (m *machine) tell(ctx context.Context, child *vmmproc.Child, p plan) error {
	ctx, stop := child.While(ctx)
	defer stop()
	return p.tell(ctx, m.api)
}

// Attach connects to a Firecracker that an earlier daemon launched; see
// [vmm.Driver]. One that never started its guest is an error too.
func (d *Driver) Attach(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	m, err := attach(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("attach to Firecracker: %w", err)
	}
	return m, nil
}

func attach(ctx context.Context, s vmm.Spec) (*machine, error) {
	conn, err := vmmproc.Dial(ctx, s.APISock)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	pid, err := vmmproc.Peer(conn, s.UID)
	if err != nil {
		return nil, err
	}
	// Where this boot's part of the console begins is not known any more.
	m, err := newMachine(pid, s, 0)
	if err != nil {
		return nil, err
	}
	// That it answers now shows that the process which is watched is the one
	// that listens, not another that was given its pid.
	info, err := m.api.describe(ctx)
	if err == nil && info.State == stateNotStarted {
		err = errors.New("it never started its guest")
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// samePeer accepts connections to one process alone.
func samePeer(pid int, uid uint32) func(net.Conn) error {
	return func(conn net.Conn) error {
		got, err := vmmproc.Peer(conn, uid)
		if err == nil && got != pid {
			err = fmt.Errorf("process %d listens at the VMM's socket, not %d", got, pid)
		}
		return err
	}
}
