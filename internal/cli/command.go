package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const (
	// chunk is how much input is read and sent at once, in bytes.
	chunk = 64 << 10
	// twiceWithin is how soon a second signal has to come to abandon the
	// command.
	twiceWithin = time.Second
	// cleanupLimit is how long an abandoned machine's deletion is waited
	// for; the daemon goes on with it.
	cleanupLimit = 15 * time.Second
)

// loginShell starts the shell of whoever runs it, as a login does. The agent
// sets SHELL from the guest's own accounts.
var loginShell = []string{"/bin/sh", "-c", `exec "${SHELL:-/bin/sh}" -l`}

// commandFlags are those of run and exec.
type commandFlags struct {
	placeFlags
	tty, none bool
}

// placeFlags say as whom a command runs, and in what surroundings.
type placeFlags struct {
	env       []string
	user, dir string
}

// start returns what to run with the given words, and the terminal for it.
func (a *app) start(f commandFlags, argv []string) (client.Start, *tty, error) {
	if f.tty && f.none {
		return client.Start{}, nil, usage("--tty and --no-tty exclude each other")
	}
	s, err := a.place(f.placeFlags, argv)
	if err != nil {
		return s, nil, err
	}
	t := a.wantTTY(f.tty, f.none)
	if t != nil {
		s.TTY = t.request()
	}
	return s, t, nil
}

// place returns what to run with the given words, without a terminal.
func (a *app) place(f placeFlags, argv []string) (client.Start, error) {
	s := client.Start{Argv: argv, User: f.user, Dir: f.dir, Stdin: true, Env: make(map[string]string)}
	if len(argv) == 0 {
		s.Argv = loginShell
	}
	for _, v := range a.env.Vars {
		if name, value, ok := strings.Cut(v, "="); ok && (name == "LANG" || strings.HasPrefix(name, "LC_")) {
			s.Env[name] = value
		}
	}
	for _, v := range f.env {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			if value, ok = a.env.lookup(name); !ok {
				return s, usage("--env %s: %s is not set here; write --env %s=VALUE", name, name, name)
			}
		}
		if name == "" || strings.ContainsRune(v, 0) {
			return s, usage("--env %q: write --env NAME or --env NAME=VALUE", v)
		}
		s.Env[name] = value
	}
	return s, nil
}

// A call is one command that runs in a machine, from our end.
type call struct {
	*app
	tty       *tty // nil: three streams
	progress  *progress
	makes     bool // the machine is made by the call …
	ephemeral bool // … and goes with it
	trace     *tracing
	cancel    context.CancelCauseFunc

	cmd     *client.Command
	vm      *api.VM // the machine, once it is known to be ready
	started bool
	exit    *client.Exit
	detach  func() // gives the terminal back; may be called twice

	mu   sync.Mutex
	last time.Time // of the last signal; guarded by mu
}

// run carries the command to its end and returns an [exitError] with its code,
// or why there is none.
func (c *call) run(ctx context.Context, begin func(context.Context) (*client.Command, error)) error {
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	defer c.progress.stop()
	c.detach = func() {}
	defer func() { c.detach() }()
	var err error
	if c.cmd, err = begin(ctx); err == nil {
		err = c.follow()
	}
	c.detach()
	if c.exit != nil {
		if err != nil {
			c.afterExit(err)
		}
		return c.exitCode()
	}
	if errors.Is(err, io.EOF) {
		err = errkind.Wrap(errkind.Internal, errors.New("the daemon ended the call before the command had ended"))
	}
	return c.broken(ctx, err)
}

// follow deals with events until there is none any more.
func (c *call) follow() error {
	for {
		e, err := c.cmd.Receive()
		if errors.Is(err, io.EOF) && c.exit != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.event(e); err != nil {
			c.cancel(err)
			return err
		}
	}
}

func (c *call) event(e client.Event) error {
	c.trace.event(e)
	switch {
	case e.Progress != nil:
		c.progress.update("", e.Progress)
	case e.Notice != "":
		c.warn("%s", e.Notice)
	case e.VM != nil:
		c.vm = e.VM
	case e.Started:
		return c.attach()
	case e.Stdout != nil:
		return c.print(e.Stdout)
	case e.Stderr != nil:
		if _, err := c.Err.Write(e.Stderr); err != nil {
			return &outputError{err}
		}
	case e.Exit != nil:
		c.exit = e.Exit
		c.detach()
		if c.ephemeral {
			c.progress.brief("delete the machine")
		}
	case e.Cleanup != nil:
		c.progress.idle()
		if w := e.Cleanup.Warning; w != "" {
			c.warn("cannot delete the machine: %s", w)
		}
	}
	return nil
}

// attach joins our streams and signals to the command, which runs now.
func (c *call) attach() error {
	c.started = true
	c.progress.idle()
	restoreSignals := c.signals.divert(c.signal)
	restoreTerminal := func() {}
	if c.tty != nil {
		var err error
		if restoreTerminal, err = c.tty.attach(c.cmd); err != nil {
			restoreSignals()
			return err
		}
	}
	c.detach = func() { restoreTerminal(); restoreSignals() }
	go c.feed()
	return nil
}

// feed sends our input to the command until either ends. It may stay behind in
// a read.
func (c *call) feed() {
	buf := make([]byte, chunk)
	for {
		n, err := c.In.Read(buf)
		if n > 0 {
			if _, err := c.cmd.Write(buf[:n]); err != nil {
				return // the command has ended
			}
		}
		if err != nil {
			// As at the end of our input: what else there is to its failure
			// the command cannot know.
			_ = c.cmd.CloseStdin()
			return
		}
	}
}

// signal sends a signal on to the command. A second one soon after abandons
// the command: it does not listen.
func (c *call) signal(sig syscall.Signal) {
	c.mu.Lock()
	again := time.Since(c.last) < twiceWithin
	c.last = time.Now()
	c.mu.Unlock()
	if again {
		c.cancel(signaled{sig})
		return
	}
	// Sending waits behind input that the command does not read.
	go func() { _ = c.cmd.Signal(sigName(sig)) }()
}

func (c *call) exitCode() error {
	if c.exit.Error != "" {
		c.tell(cannot("run the command", errors.New(c.exit.Error)))
	}
	if c.exit.Code == 0 {
		return nil
	}
	return exitError(c.exit.Code)
}

// afterExit deals with the end of a call whose command had ended by then: the
// code stands.
func (c *call) afterExit(err error) {
	switch {
	case !c.ephemeral:
	case errors.Is(err, api.ErrLost):
		if err := c.recoverDaemon(); err != nil {
			c.warn("cannot delete the machine: %v", err)
		}
	default:
		c.warn("cannot tell whether the machine was deleted: %v", err)
	}
}

// broken deals with the end of a call whose command has not ended, or is not
// known to have.
func (c *call) broken(ctx context.Context, err error) error {
	c.progress.idle()
	if ctx.Err() != nil {
		// Our own doing: a signal, --timeout, output that nobody takes.
		err = context.Cause(ctx)
		c.deleteAbandoned()
	}
	err = c.whetherRun(ctx, err)
	if errors.Is(err, api.ErrLost) {
		// The next daemon's first pass deletes what was leased to this call.
		if rerr := c.recoverDaemon(); rerr != nil {
			c.warn("cannot start the daemon again: %v", rerr)
		}
	}
	return err
}

// whetherRun says in the error whether the command may have run. A daemon that
// answered has said so itself, if it had anything to say.
func (c *call) whetherRun(ctx context.Context, err error) error {
	lost := errors.Is(err, api.ErrLost)
	ours := ctx.Err() != nil
	_, silent := exitCode(err)
	switch ready := c.vm != nil || !c.makes; {
	case silent || isOutput(err) || errkind.Of(err) == errkind.Usage:
		return err
	case lost, ours && ready:
		return fmt.Errorf("%w; the command may have run", err)
	case !ready:
		return fmt.Errorf("%w; the command did not run", err)
	}
	return err
}

// recoverDaemon starts the daemon again after it went away, if the machine was
// leased to this call.
func (c *call) recoverDaemon() error {
	if !c.ephemeral {
		return nil
	}
	ctx, cancel := c.lastWords()
	defer cancel()
	c.progress.stage("start the daemon again")
	defer c.progress.idle()
	o, err := c.daemon()
	if err != nil {
		return err
	}
	return client.Ensure(ctx, o)
}

// deleteAbandoned waits until the machine that was leased to this call is
// gone. One that was not ready yet is deleted by the daemon in its own time.
func (c *call) deleteAbandoned() {
	if !c.ephemeral || c.vm == nil {
		return
	}
	ctx, cancel := c.lastWords()
	defer cancel()
	c.progress.brief("delete the machine")
	defer c.progress.idle()
	paths, err := c.paths()
	if err == nil {
		cl := client.New(paths.Socket())
		defer cl.Close()
		_, err = cl.VM.Delete(ctx, connect.NewRequest(&api.DeleteRequest{Vm: c.vm.Id}))
	}
	if err != nil && errkind.Of(err) != errkind.NotFound && ctx.Err() == nil {
		c.warn("cannot delete the machine: %v", err)
	}
}

// lastWords is a context for what is still to be done when a call is over;
// another signal ends it.
func (a *app) lastWords() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	restore := a.signals.divert(func(syscall.Signal) { cancel() })
	return ctx, func() { restore(); cancel() }
}
