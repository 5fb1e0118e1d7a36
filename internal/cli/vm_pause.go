package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const pauseHelp = `Make machines stand still: they keep their memory and use no processor.

They go on with "banger vm resume", and by themselves as soon as they are used:
by exec, cp, ssh, or a verb of vm session. Their clocks are right then.`

func (a *app) vmPause() *cobra.Command {
	return &cobra.Command{
		Use:               "pause VM…",
		Short:             "Make machines stand still",
		Long:              pauseHelp,
		Example:           "  banger vm pause web",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true, "running"),
		RunE: func(c *cobra.Command, refs []string) error {
			return a.eachVM(c.Context(), refs, "pause", "paused", func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				resp, err := c.VM.Pause(ctx, connect.NewRequest(&api.PauseRequest{Vm: ref}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Vm, nil
			})
		},
	}
}
