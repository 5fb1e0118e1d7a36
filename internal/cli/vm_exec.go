package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/errkind"
)

const execHelp = `Run a command in a machine that runs, or a shell.

The exit code is the command's: 128+n if signal n ended it, 126 or 127 if it
could not be run, 125 if banger itself failed.`

const execExamples = `  banger vm exec web -- ls -l /
  banger vm exec web
  tar -c . | banger vm exec web -w /srv -- tar -x`

func (a *app) vmExec() *cobra.Command {
	var cmd commandFlags
	c := &cobra.Command{
		Use:               "exec [flags] VM [-- COMMAND…]",
		Short:             "Run a command in a machine that runs",
		Long:              execHelp,
		Example:           execExamples,
		Args:              oneBeforeDashes,
		ValidArgsFunction: a.completeVMs(false, "running"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.execCommand(c.Context(), args[0], cmd, args[1:])
		},
	}
	a.dashesBefore(c, 1)
	c.Flags().SortFlags = false
	cmd.add(c.Flags())
	return c
}

// oneBeforeDashes takes a machine before "--" and nothing else there.
func oneBeforeDashes(c *cobra.Command, args []string) error {
	n := c.ArgsLenAtDash()
	if n < 0 {
		n = len(args)
	}
	switch {
	case n == 1:
		return nil
	case n == 0:
		return errkind.WithHint(usage("%q takes a machine", c.CommandPath()), "banger vm list")
	}
	return errkind.WithHint(usage(`%q: what is to be run stands after "--"`, args[1]),
		c.CommandPath()+" "+errkind.Quote(args[0])+" -- "+quoteAll(args[1:]))
}

func (a *app) execCommand(ctx context.Context, vm string, f commandFlags, argv []string) error {
	s, t, err := a.start(f, argv)
	if err != nil {
		return err
	}
	ctx, cancel := a.limit(ctx)
	defer cancel()
	x := &call{app: a, tty: t, progress: a.progress()}
	err = x.run(ctx, func(ctx context.Context) (*client.Command, error) {
		c, err := a.connect(ctx, x.progress)
		if err != nil {
			return nil, err
		}
		return c.Exec(ctx, vm, s)
	})
	return guestError(doing(argv, vm), err)
}
