package cli

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/api/client"
)

const sessionKillHelp = `Send a signal to sessions, to their whole process groups: KILL, or another one
by its name or number.`

func (a *app) sessionKill() *cobra.Command {
	signal := "KILL"
	c := &cobra.Command{
		Use:               "kill [flags] VM SESSION…",
		Short:             "End sessions at once, or send them a signal",
		Long:              sessionKillHelp,
		Example:           "  banger vm session kill web build\n  banger vm session kill --signal HUP web server",
		Args:              someSessions,
		ValidArgsFunction: a.completeSessions(true, alive...),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := signalName(signal)
			if err != nil {
				return err
			}
			verb, done := "kill", "killed"
			if name != "KILL" {
				verb, done = "send "+name+" to", "got "+name
			}
			return a.eachSession(c.Context(), args, verb, done, func(ctx context.Context, c *client.Client, ref string) (*api.Session, error) {
				resp, err := c.Session.KillSession(ctx, connect.NewRequest(&api.KillSessionRequest{Vm: args[0], Session: ref, Signal: name}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.GetSession(), nil
			})
		},
	}
	c.Flags().StringVarP(&signal, "signal", "s", signal, "the `SIGNAL`, as in HUP, SIGHUP or 1")
	completeFlag(c, "signal", cobra.FixedCompletions([]string{"HUP", "INT", "KILL", "TERM", "USR1", "USR2", "STOP", "CONT"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// signalName is a signal's name without SIG, given that or its number, which is
// the same in a guest: both are x86-64.
func signalName(s string) (string, error) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(s); err == nil {
		name = unix.SignalName(syscall.Signal(n))
	}
	if unix.SignalNum(name) == 0 {
		return "", usage("--signal %q: there is no such signal", s)
	}
	return strings.TrimPrefix(name, "SIG"), nil
}
