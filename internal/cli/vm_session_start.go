package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const sessionStartHelp = `Start a session in a machine that runs, and print its name. Without --name one
is made up.

It returns when the command runs, or has failed to start: then there is a
session that tells why. The directory, the command and what --require names are
looked for first.

The command's input is empty ("--stdin closed"), a pipe that stays open while
nobody is attached ("pipe"), or a terminal ("pty"), which runs a shell if there
is no command.

With --attach you are attached to it at once, and the exit code is the
command's; see "banger vm session attach --help".`

const sessionStartExamples = `  banger vm session start web -- make test
  banger vm session start web --name agent --stdin pipe -- python3 agent.py
  banger vm session start web --name shell --stdin pty --attach`

// stdinModes are what a session's input can be.
var stdinModes = []string{"closed", "pipe", "pty"}

// startFlags say what session is wanted.
type startFlags struct {
	placeFlags
	req    api.StartSessionRequest
	attach bool
}

func (a *app) sessionStart() *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:               "start [flags] VM [-- COMMAND…]",
		Short:             "Start a session",
		Long:              sessionStartHelp,
		Example:           sessionStartExamples,
		Args:              oneBeforeDashes,
		ValidArgsFunction: a.completeVMs(false, "running"),
		RunE: func(c *cobra.Command, args []string) error {
			f.req.Vm = args[0]
			if err := f.check(a, c, args[1:]); err != nil {
				return err
			}
			return a.startSession(c.Context(), &f, args[1:])
		},
	}
	a.dashesBefore(c, 1)
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.req.Name, "name", "", "`NAME` of the session")
	fs.StringVar(&f.req.Stdin, "stdin", stdinModes[0], "its input, a `MODE`: closed, pipe or pty")
	f.placeFlags.add(fs)
	fs.StringArrayVar(&f.req.RequiredCommands, "require", nil, "`COMMAND` that must be in the guest too; may be repeated")
	fs.StringArrayVar(&f.req.Tags, "tag", nil, "`TAG` to find it by; may be repeated")
	fs.Var(sizeFlag{&f.req.LogLimitBytes}, "log-limit", "what is kept of each of its logs, as in 64M (what is configured)")
	fs.BoolVar(&f.attach, "attach", false, "attach to it")
	completeFlag(c, "stdin", cobra.FixedCompletions(stdinModes, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(c, "tag", a.completeTags())
	return c
}

// check refuses what makes no sense, without asking the daemon.
func (f *startFlags) check(a *app, c *cobra.Command, argv []string) error {
	switch {
	case !slices.Contains(stdinModes, f.req.Stdin):
		return usage("--stdin %q: there is %s", f.req.Stdin, strings.Join(stdinModes, ", "))
	case c.Flags().Changed("name") && f.req.Name == "":
		return usage("--name is empty")
	case f.attach && a.json:
		return usage("--attach and --json exclude each other")
	case len(argv) == 0 && f.req.Stdin != "pty":
		return errkind.WithHint(usage(`what is to be run stands after "--"`), c.CommandPath()+" --help")
	}
	return nil
}

func (a *app) startSession(ctx context.Context, f *startFlags, argv []string) error {
	s, err := a.place(f.placeFlags, argv)
	if err != nil {
		return err
	}
	if f.req.Stdin == "pty" {
		s.TTY = a.wantTTY(true, false).request()
	}
	what := "start a session in " + f.req.Vm
	if f.req.Name != "" {
		what = "start " + theSession(f.req.Vm, f.req.Name)
	}
	var session *api.Session
	err = a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		session, err = c.StartSession(ctx, &f.req, s)
		return err
	})
	if err != nil {
		return f.failure(cannot(what, err))
	}
	if a.json {
		if err := a.printDoc(session); err != nil {
			return err
		}
	}
	if session.GetStatus() == "failed" {
		return f.failure(notStarted(session))
	}
	switch {
	case f.attach:
		return a.attachStarted(ctx, session)
	case a.json:
		return nil
	}
	return a.print([]byte(clean(session.GetName()) + "\n"))
}

// failure is banger's own if we were to attach: the exit code would be the
// command's.
func (f *startFlags) failure(err error) error {
	if f.attach {
		return &guestFailure{err}
	}
	return err
}

// notStarted says why a session failed to start.
func notStarted(s *api.Session) error {
	why := fmt.Errorf("%s: %s", s.GetFailedStage(), s.GetFailedMessage())
	return errkind.WithHint(cannot("start "+theSession(s.GetVm(), s.GetName()), why), sessionLine("show", s.GetVm(), s.GetName()))
}
