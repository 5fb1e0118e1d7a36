// Package cli is banger at the terminal: it parses, calls the daemon and
// prints. It decides nothing about machines.
//
// What people and scripts may rely on is one contract: the streams (what was
// asked for on standard output, everything else on standard error), the exit
// codes (exit.go), the form of errors and hints (message.go) and that of
// --json, which is that of the API's messages. Each command is one file; vm
// run and vm exec share command.go.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/trace"
)

// Stdio is where a command reads and writes. A terminal is found where one of
// them is an [*os.File] that is one.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Env is what a command gets of its surroundings. The zero value is a user
// without an environment.
type Env struct {
	Name    string   // by which banger was called, for hints; empty: "banger"
	Vars    []string // the environment, each NAME=VALUE
	Root    bool     // the user has root's rights
	Systemd bool     // systemd is PID 1
	// PassOn names the variables of Vars that a daemon gets if one is
	// started.
	PassOn []string

	testOnlyRun string // in the place of /run/banger-TAG
}

// lookup returns the value of an environment variable.
func (e Env) lookup(name string) (string, bool) {
	// The last one counts, as in a shell.
	for _, v := range slices.Backward(e.Vars) {
		if k, value, ok := strings.Cut(v, "="); ok && k == name {
			return value, true
		}
	}
	return "", false
}

func (e Env) get(name string) string {
	v, _ := e.lookup(name)
	return v
}

// app is one run of banger.
type app struct {
	Stdio
	env     Env
	args    []string // as they were given
	signals *signals

	// Flags that every command has.
	rootDir string
	json    bool
	quiet   bool
	timeout time.Duration
}

// Run runs banger with the arguments that follow its name and returns its exit
// code. It handles the process's signals while it runs; everything else it
// does through its arguments. It may leave a goroutine behind that reads
// s.In.
func Run(ctx context.Context, args []string, s Stdio, e Env) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &app{Stdio: s, env: e, args: args, signals: catchSignals(cancel)}
	defer a.signals.stop()
	root := a.rootCommand()
	help := &helpWriter{w: a.Out}
	root.SetOut(help)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = help.err
	}
	if err != nil && slices.Contains(beforeDashes(args), "--json") {
		a.json = true // also if another flag was wrong before it was seen
	}
	return a.exit(err)
}

// beforeDashes returns what stands before "--": what follows is somebody
// else's.
func beforeDashes(args []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i]
	}
	return args
}

// limit applies --timeout to a call. The limit is ours alone and does not
// travel with the call, so that its end has one cause wherever it is noticed.
func (a *app) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return a.limitLater(ctx, 0)
}

// limitLater is limit for a call whose other end keeps to --timeout by itself,
// and has some time more to say so.
func (a *app) limitLater(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	if a.timeout <= 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(a.timeout+more, func() {
		cancel(errkind.New(errkind.Timeout, "not done within %s", a.timeout))
	})
	return ctx, func() { t.Stop(); cancel(nil) }
}

// paths returns the places of the daemon that is meant.
func (a *app) paths() (config.Paths, error) {
	dir := a.rootDir
	if dir == "" {
		dir = a.env.get("BANGER_ROOT")
	}
	p, err := config.NewPaths(dir)
	if a.env.testOnlyRun != "" {
		p.Run = a.env.testOnlyRun
	}
	return p, err
}

// daemon says which daemon is meant and how to start it.
func (a *app) daemon() (client.Options, error) {
	paths, err := a.paths()
	if err != nil {
		return client.Options{}, err
	}
	o := client.Options{Paths: paths, Root: a.env.Root, Systemd: a.env.Systemd}
	for _, name := range a.env.PassOn {
		if v, ok := a.env.lookup(name); ok {
			o.Env = append(o.Env, name+"="+v)
		}
	}
	return o, nil
}

// connect returns a client of the daemon, which is started if none answers.
func (a *app) connect(ctx context.Context, p *progress) (*client.Client, error) {
	o, err := a.daemon()
	if err != nil {
		return nil, err
	}
	c := client.New(o.Paths.Socket())
	err = c.Ping(ctx)
	if client.IsNone(err) {
		p.stage("start the daemon")
		started := trace.Span(ctx, trace.Banger, "start the daemon")
		err = client.Ensure(ctx, o)
		started()
		if err != nil {
			return nil, cannot("start the daemon", err)
		}
	}
	if err != nil {
		return nil, cannot("reach the daemon", err)
	}
	return c, nil
}

// self is how banger can be called again.
func (a *app) self() string {
	if a.env.Name == "" || !strings.Contains(a.env.Name, "/") {
		return "banger"
	}
	return filepath.Clean(a.env.Name)
}

// terminal returns the file if s is a terminal.
func terminal(s any) (*os.File, bool) {
	f, ok := s.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// outputError says that what was asked for could not be written out.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// print writes to standard output.
func (a *app) print(b []byte) error {
	if _, err := a.Out.Write(b); err != nil {
		return &outputError{err}
	}
	return nil
}

// helpWriter keeps the error of what cobra writes, which looks at it at times,
// and then prints it. The rest is swallowed.
type helpWriter struct {
	w   io.Writer
	err error
}

func (h *helpWriter) Write(p []byte) (int, error) {
	if h.err == nil {
		if _, err := h.w.Write(p); err != nil {
			h.err = &outputError{err}
		}
	}
	return len(p), nil
}

// isOutput reports whether err is about our own output.
func isOutput(err error) bool {
	var oe *outputError
	return errors.As(err, &oe)
}
