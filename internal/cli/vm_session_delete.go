package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const sessionDeleteHelp = `Delete sessions with their logs, for good; their names are free then. One that
runs is killed.`

func (a *app) sessionDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete VM SESSION…",
		Aliases:           []string{"rm"},
		Short:             "Delete sessions with their logs",
		Long:              sessionDeleteHelp,
		Example:           "  banger vm session delete web build test",
		Args:              someSessions,
		ValidArgsFunction: a.completeSessions(true),
		RunE: func(c *cobra.Command, args []string) error {
			return a.eachSession(c.Context(), args, "delete", "deleted", func(ctx context.Context, c *client.Client, ref string) (*api.Session, error) {
				resp, err := c.Session.DeleteSession(ctx, connect.NewRequest(&api.DeleteSessionRequest{Vm: args[0], Session: ref}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.GetSession(), nil
			})
		},
	}
}
