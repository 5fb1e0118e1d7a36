package hostcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"syscall"
)

// Attached is a program that takes the caller's place for a while: it has the
// caller's streams, terminal and process group, so that keys such as Ctrl-C are
// its own. It dies with the caller.
type Attached struct {
	Argv           []string // Argv[0] is looked up in PATH
	Env            []string // all of it
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run runs the program and returns its exit code. One that is not there is an
// error of kind [errkind.Host]; so is one that cannot be started an error, and
// one that a signal has ended. When ctx ends, the program is sent SIGTERM,
// later SIGKILL, and the error is the cause of ctx's end.
func (a Attached) Run(ctx context.Context) (code int, err error) {
	path, err := Look(a.Argv[0])
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, path, a.Argv[1:]...)
	cmd.Args[0] = a.Argv[0]
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Env, a.Stdin, a.Stdout, a.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	// Its parent, as the kernel counts, is the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee) && ee.Exited():
		return ee.ExitCode(), nil
	case err != nil:
		return 0, fmt.Errorf("%s: %w", a.Argv[0], err)
	}
	return 0, nil
}
