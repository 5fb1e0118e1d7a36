package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const killHelp = `End machines at once, as if their power failed.

What a guest had not synced by then may be lost.`

func (a *app) vmKill() *cobra.Command {
	return &cobra.Command{
		Use:               "kill VM…",
		Short:             "End machines at once",
		Long:              killHelp,
		Example:           "  banger vm kill web",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true, "running", "paused", "starting", "stopping", "faulty"),
		RunE: func(c *cobra.Command, refs []string) error {
			return a.eachVM(c.Context(), refs, "kill", "killed", func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				resp, err := c.VM.Kill(ctx, connect.NewRequest(&api.KillRequest{Vm: ref}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Vm, nil
			})
		},
	}
}
