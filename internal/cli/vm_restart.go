package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const restartHelp = `Power machines off as "vm stop" does, if they are up, and start them again.`

func (a *app) vmRestart() *cobra.Command {
	var grace graceFlag
	c := &cobra.Command{
		Use:               "restart [flags] VM…",
		Short:             "Power machines off and start them again",
		Long:              restartHelp,
		Example:           "  banger vm restart web db\n  banger vm restart --grace 1m db",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			g, err := grace.value(c.Flags())
			if err != nil {
				return err
			}
			return a.eachVM(c.Context(), refs, "restart", "restarted", func(ctx context.Context, c *client.Client, ref string, progress func(*api.Progress)) (*api.VM, error) {
				return restartVM(ctx, c, &api.RestartRequest{Vm: ref, Grace: g}, progress)
			})
		},
	}
	grace.add(c.Flags(), "a machine has to power off, as in 30s (what is configured)")
	return c
}

func restartVM(ctx context.Context, c *client.Client, req *api.RestartRequest, progress func(*api.Progress)) (*api.VM, error) {
	stream, err := c.VM.Restart(ctx, connect.NewRequest(req))
	return awaitVM(stream, err, progress)
}
