package cli

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
)

const stopHelp = `Ask machines to sync their disks and power off, and wait until they have.

A machine that has not after the grace time is killed: what it had not synced
by then may be lost.`

func (a *app) vmStop() *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{
		Use:               "stop [flags] VM…",
		Short:             "Power machines off",
		Long:              stopHelp,
		Example:           "  banger vm stop web db\n  banger vm stop --grace 1m db",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			var g *durationpb.Duration
			if c.Flags().Changed("grace") {
				if grace < 0 {
					return usage("--grace %s: it takes no negative time", grace)
				}
				g = durationpb.New(grace)
			}
			return a.eachVM(c.Context(), refs, "stop", "stopped", func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				resp, err := c.VM.Stop(ctx, connect.NewRequest(&api.StopRequest{Vm: ref, Grace: g}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Vm, nil
			})
		},
	}
	c.Flags().DurationVar(&grace, "grace", 0, "how long a machine has to power off, as in 30s (what is configured)")
	return c
}
