package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const sessionAttachHelp = `Attach to a session: what it writes is printed, the last lines first, and our
input is its own. The exit code is the command's when it ends: 128+n if signal n
ended it; 125 if banger itself failed, or somebody else takes the session over.

Ctrl-\ detaches: the command goes on, and so it does however else we end. Ctrl-C
is for the command; in a session without a terminal a second one within a second
detaches. The end of our input, Ctrl-D at a terminal, ends that of the session.

One alone has a session's input: --take takes it from who has it, --read-only
does without, and then Ctrl-C detaches.

If the daemon or the agent in the machine goes away we attach anew for a minute,
and nothing of the output is missing.`

const sessionAttachExamples = `  banger vm session attach web shell
  banger vm session attach --read-only --tail 100 web build
  echo 'run tests' | banger vm session attach web agent`

// attachTail is how many lines of each stream attaching begins with.
const attachTail = 10

func (a *app) sessionAttach() *cobra.Command {
	at := client.Attach{}
	c := &cobra.Command{
		Use:               "attach [flags] VM SESSION",
		Short:             "Join a session's input and output",
		Long:              sessionAttachHelp,
		Example:           sessionAttachExamples,
		Args:              oneSession,
		ValidArgsFunction: a.completeSessions(false, alive...),
		RunE: func(c *cobra.Command, args []string) error {
			if at.Take && at.ReadOnly {
				return usage("--take and --read-only exclude each other")
			}
			if at.Tail == 0 {
				at.Tail = attachTail
			}
			at.VM, at.Session = args[0], args[1]
			return a.attach(c.Context(), at, args[1])
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&at.Take, "take", false, "take the session over from who is attached")
	f.BoolVar(&at.ReadOnly, "read-only", false, "only look on")
	f.Int32VarP(&at.Tail, "tail", "n", attachTail, "begin with the last `LINES`; -1: with none")
	return c
}

// attachStarted attaches to a session that has just been started: none of its
// output is left out.
func (a *app) attachStarted(ctx context.Context, s *api.Session) error {
	at := client.Attach{VM: s.GetVm(), Session: s.GetId(), FromStdout: 1, FromStderr: 1}
	return a.attach(ctx, at, s.GetName())
}

// An attachment is one run of vm session attach, over as many connections as
// it takes.
type attachment struct {
	*app
	at     client.Attach
	name   string // of the session, as it was given
	tty    *tty   // nil: three streams
	seen   seen
	p      *progress
	ctx    context.Context
	cancel context.CancelCauseFunc
	input  *sessionInput

	pty     bool   // the session has a terminal
	joined  bool   // we have been attached
	release func() // gives terminal and signals back; may be called twice

	mu   sync.Mutex
	cmd  *client.Attachment // nil: there is no connection; guarded by mu
	last time.Time          // of the last SIGINT; guarded by mu
}

// errDetached says that we have left a session that goes on.
var errDetached = errors.New("detached")

func (a *app) attach(ctx context.Context, at client.Attach, name string) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	at.Who = whoAttaches()
	x := &attachment{app: a, at: at, name: name, tty: a.wantTTY(false, false), seen: make(seen), p: a.progress(), release: func() {}}
	defer x.p.stop()
	if x.tty != nil {
		x.at.TTY = x.tty.request()
	}
	ctx, done := a.whileRead(ctx)
	defer done()
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	defer x.cancel(nil)
	err := a.again(x.ctx, x.p, x.say, x.join)
	x.release()
	return x.outcome(err)
}

// whoAttaches says who we are, for the next who wants to attach.
func whoAttaches() string {
	name, host := "somebody", "a host"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return fmt.Sprintf("%s@%s pid %d", name, host, os.Getpid())
}

// join carries one connection to its end.
func (x *attachment) join(ctx context.Context, c *client.Client, came func()) error {
	ctx, cancel := context.WithCancel(ctx)
	since := maps.Clone(x.seen)
	at := x.at
	if x.joined {
		at.FromStdout, at.FromStderr = x.from("stdout"), x.from("stderr")
	}
	leave := func() {}
	defer func() { cancel(); leave() }() // what is being sent is not waited for
	cmd, err := c.Attach(ctx, at)
	if err != nil {
		return err
	}
	for {
		e, err := cmd.Receive()
		switch {
		case x.left():
			return errDetached
		case errors.Is(err, io.EOF):
			return errBrokenOff
		case err != nil:
			return err
		case e.Session != nil:
			came()
			if leave, err = x.attached(ctx, cmd, e.Session); err != nil {
				return err
			}
		case e.Output != nil:
			err = x.output(since, e.Output)
		case e.Notice != "":
			x.say("warning: " + e.Notice)
		case e.Taken != "":
			return errkind.WithHint(errkind.New(errkind.Conflict, "%s has taken it over", e.Taken),
				sessionLine("attach --take", x.at.VM, x.name))
		case e.Ended != nil:
			return sessionEnd(e.Ended)
		}
		if err != nil {
			return err
		}
	}
}

// from is where a stream goes on. One that had nothing to show when we attached
// begins with its first byte, unless we began with none of what there was.
func (x *attachment) from(stream string) int64 {
	if n, ok := x.seen[stream]; ok || x.at.Tail < 0 {
		return n
	}
	return 1
}

// attached joins our terminal, signals and input to the session. Leave parts
// them from this connection.
func (x *attachment) attached(ctx context.Context, cmd *client.Attachment, s *api.Session) (leave func(), err error) {
	if !x.joined {
		if err := x.begin(s); err != nil {
			return func() {}, err
		}
	}
	x.set(cmd)
	stopSize := func() {}
	if x.pty && x.tty != nil {
		stopSize = x.tty.tellSize(cmd)
	}
	done := x.input.feed(ctx, cmd)
	return func() { x.set(nil); stopSize(); done() }, nil
}

// begin takes terminal and signals over. What comes later is only another
// connection.
func (x *attachment) begin(s *api.Session) error {
	x.joined = true
	x.p.stop()
	x.at.Session, x.at.Take = s.GetId(), false // what has that name later may be another
	x.pty = s.GetStdin() == "pty"
	keys := x.pty && x.tty != nil
	x.input = newSessionInput(keys, x.at.ReadOnly, x.leave)
	restoreTerminal := func() {}
	if keys {
		var err error
		if restoreTerminal, err = x.tty.raw(); err != nil {
			return errkind.Wrap(errkind.Host, err)
		}
	}
	restoreSignals := x.signals.divert(x.signal)
	x.release = sync.OnceFunc(func() { restoreTerminal(); restoreSignals() })
	if keys || s.GetStdin() != "closed" && !x.at.ReadOnly {
		go x.input.read(x.In)
	}
	return nil
}

func (x *attachment) set(cmd *client.Attachment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cmd = cmd
}

// output prints some of what the session wrote.
func (x *attachment) output(since seen, o *client.Output) error {
	data := x.seen.next(since, o.Stream, o.Offset, o.Data, o.Mark)
	if o.Stream != "stderr" {
		return x.print(data)
	}
	if _, err := x.Err.Write(data); err != nil {
		return &outputError{err}
	}
	return nil
}

// signal deals with a signal of ours. It does not block. Ctrl-C is for the
// command, a second one soon after leaves it. Nothing else ends what is to
// outlive us.
func (x *attachment) signal(sig syscall.Signal) {
	switch sig {
	case syscall.SIGINT:
		x.mu.Lock()
		again := time.Since(x.last) < twiceWithin
		x.last = time.Now()
		cmd := x.cmd
		x.mu.Unlock()
		if cmd == nil || again || x.at.ReadOnly {
			x.leave()
			return
		}
		// Sending waits behind input that the command does not read.
		go func() { _ = cmd.Signal(sigName(sig)) }()
	case syscall.SIGQUIT:
		x.leave()
	default:
		x.cancel(signaled{sig})
	}
}

// partTime is how long input that is on its way may take to arrive after we
// have decided to leave, and ownTime how long the daemon to notice.
const (
	partTime = 500 * time.Millisecond
	ownTime  = 100 * time.Millisecond
)

// leave detaches. It does not block, and may be called twice.
func (x *attachment) leave() {
	x.mu.Lock()
	connected := x.cmd != nil
	x.mu.Unlock()
	if !connected {
		x.cancel(errDetached)
		return
	}
	time.AfterFunc(partTime, func() { x.cancel(errDetached) })
	x.input.leave(func() { time.AfterFunc(ownTime, func() { x.cancel(errDetached) }) })
}

// left reports whether we have decided to leave.
func (x *attachment) left() bool {
	return x.input != nil && x.input.isLeaving() || errors.Is(context.Cause(x.ctx), errDetached)
}

// say tells people a line, also where the terminal is the session's.
func (x *attachment) say(line string) {
	if x.pty && x.tty != nil {
		fmt.Fprintf(x.Err, "\r\nbanger: %s\r\n", clean(line))
		return
	}
	fmt.Fprintf(x.Err, "banger: %s\n", clean(line))
}

// sessionEnd is what we end with when a session has.
func sessionEnd(e *client.SessionEnd) error {
	switch {
	case e.Failed:
		return errkind.New(errkind.Conflict, "the session failed: %s: %s", e.Stage, e.Message)
	case e.Code != 0:
		return exitError(e.Code)
	}
	return nil
}

// outcome tells how attaching ended.
func (x *attachment) outcome(err error) error {
	if err != nil && x.left() {
		if x.pty && x.tty != nil && x.env.get("TERM") != "dumb" {
			fmt.Fprint(x.Out, plainTerminal+"\r\n")
		}
		x.note("detached; %s", x.hint(sessionLine("attach", x.at.VM, x.name)))
		return nil
	}
	doing := "attach to "
	if x.joined {
		doing = "stay attached to "
		if err != nil && wentAway(err, true) && x.ctx.Err() == nil {
			err = errkind.WithHint(err, sessionLine("attach", x.at.VM, x.name))
		}
	}
	return guestError(doing+theSession(x.at.VM, x.name), err)
}

// plainTerminal undoes what programs do to a terminal that we leave in the
// middle of theirs: the other screen, a hidden cursor, pasting in brackets,
// mouse and key modes, colours (XTerm Control Sequences).
const plainTerminal = "\x1b[?1047l\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1l\x1b>\x1b[0m"
