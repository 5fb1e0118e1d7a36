package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// A System is a guest as a template's agent changes it. Its methods are called
// one at a time, each once for a machine, but Systemctl and MoveJournal. What a
// failed one leaves is thrown away with the guest, but again for those two.
type System interface {
	// Seed gives the kernel randomness that no other guest has, 32 bytes or
	// more, and makes it use that at once.
	Seed(entropy []byte) error
	// SetHostname sets the kernel's host name.
	SetHostname(name string) error
	// SetName tells the name of a machine, which has another, in the files that
	// tell it, and does what Keep does.
	SetName(b wire.Bundle) error
	// Quiet waits until the guest has little to do, for some seconds at most.
	Quiet(ctx context.Context) error
	// Hurry makes the agent come before everything else that runs in the guest,
	// or ends that.
	Hurry(on bool) error
	// Grow makes the file system of a disk that is mounted as large as that, once
	// that has the size that it should have. It waits as long as ctx allows.
	Grow(ctx context.Context, m wire.Mount) error
	// SetFiles tells who the machine is in the files that tell it.
	SetFiles(b wire.Bundle) error
	// SetNetwork gives the interfaces, in their order, their addresses, of
	// both kinds, and brings them up.
	SetNetwork(nics []wire.NIC) error
	// Keep puts an encoded bundle where an agent that is started again reads it,
	// in one step.
	Keep(bundle []byte) error
	// Systemctl runs systemctl(1) and returns what it printed. The error is an
	// exitError if that ended with another code than 0, and errNoSystemd if
	// the guest's init is another.
	Systemctl(ctx context.Context, args ...string) (string, error)
	// MoveJournal moves the journal's files from the directories of one
	// machine-id to those of another. It succeeds if there are none.
	MoveJournal(from, to string) error
}

var errNoSystemd = errors.New("the guest's init is not systemd")

// exitError is the code with which a program ended.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// guestSystem is the guest that the agent runs in. Make it with newGuestSystem.
type guestSystem struct{ spawn spawner }

func newGuestSystem(s spawner) guestSystem { return guestSystem{s} }

var _ System = guestSystem{}

func (guestSystem) SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

// withTree calls f with the tree that everybody sees.
func withTree(f func(*tree) error) error {
	t, err := openTree("/")
	if err != nil {
		return err
	}
	defer t.Close()
	return f(t)
}

func (guestSystem) SetFiles(b wire.Bundle) error {
	return withTree(func(t *tree) error { return setIdentity(t, b) })
}

func (guestSystem) SetName(b wire.Bundle) error {
	data, err := b.Encode()
	if err != nil {
		return err
	}
	return withTree(func(t *tree) error {
		return errors.Join(
			t.write("/etc/hostname", []byte(b.Hostname+"\n"), 0o644),
			setHosts(t, b),
			keep(t, data),
		)
	})
}

func (guestSystem) Keep(bundle []byte) error {
	return withTree(func(t *tree) error { return keep(t, bundle) })
}

// keep replaces the bundle that install wrote.
func keep(t *tree, bundle []byte) error { return t.write(runBundle, bundle, 0o600) }

func (guestSystem) MoveJournal(from, to string) error {
	return withTree(func(t *tree) error {
		return errors.Join(renameIn(t, "/var/log/journal", from, to), renameIn(t, "/run/log/journal", from, to))
	})
}

// renameIn gives an entry of a directory another name. It succeeds if either is
// not there.
func renameIn(t *tree, dir, from, to string) error {
	d, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = unix.Renameat(int(d.Fd()), from, int(d.Fd()), to)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("rename %s: %w", path.Join(dir, from), err)
	}
	return nil
}

func (g guestSystem) Systemctl(ctx context.Context, args ...string) (string, error) {
	if !systemdRuns() {
		return "", errNoSystemd
	}
	out, err := g.run(ctx, append([]string{"systemctl"}, args...))
	if err != nil {
		line := oneLine(errors.New(out))
		err = fmt.Errorf("systemctl %s: %w (%s)", strings.Join(args, " "), err, line)
	}
	return out, err
}

// run runs a program of the image to its end, or the end of ctx, and returns
// what it wrote, up to maxLine bytes.
func (g guestSystem) run(ctx context.Context, argv []string) (string, error) {
	program, err := findProgram(argv[0], "/", rootPath)
	if err != nil {
		return "", err
	}
	var out head
	cmd := &exec.Cmd{
		Path: program, Args: argv, Dir: "/",
		Env:    []string{"PATH=" + rootPath, "HOME=/root", "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"},
		Stdout: &out, Stderr: &out, SysProcAttr: &syscall.SysProcAttr{},
		WaitDelay: linger,
	}
	p, err := g.spawn.start(cmd, nil)
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, p.kill)()
	status, err := p.wait()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && status.Signaled():
		err = fmt.Errorf("killed by signal %d", int(status.Signal()))
	case err == nil && status.ExitStatus() != 0:
		err = exitError(status.ExitStatus())
	}
	return out.String(), err
}

// A head keeps the first of what is written to it, and drops the rest.
type head struct{ b bytes.Buffer }

func (h *head) Write(b []byte) (int, error) {
	h.b.Write(b[:min(len(b), maxLine-h.b.Len())])
	return len(b), nil
}

func (h *head) String() string { return h.b.String() }
