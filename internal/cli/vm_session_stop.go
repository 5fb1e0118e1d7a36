package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const sessionStopHelp = `Ask sessions to end (SIGTERM), and wait until they have. What has not after the
grace time is killed, with its whole process group.`

func (a *app) sessionStop() *cobra.Command {
	var grace graceFlag
	c := &cobra.Command{
		Use:               "stop [flags] VM SESSION…",
		Short:             "End sessions",
		Long:              sessionStopHelp,
		Example:           "  banger vm session stop web build test\n  banger vm session stop --grace 1m web db",
		Args:              someSessions,
		ValidArgsFunction: a.completeSessions(true, alive...),
		RunE: func(c *cobra.Command, args []string) error {
			g, err := grace.value(c.Flags())
			if err != nil {
				return err
			}
			return a.eachSession(c.Context(), args, "stop", "stopped", func(ctx context.Context, c *client.Client, ref string) (*api.Session, error) {
				resp, err := c.Session.StopSession(ctx, connect.NewRequest(&api.StopSessionRequest{Vm: args[0], Session: ref, Grace: g}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.GetSession(), nil
			})
		},
	}
	grace.add(c.Flags(), "a session has to end, as in 30s (10s)")
	return c
}
