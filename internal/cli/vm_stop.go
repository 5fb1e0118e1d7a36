package cli

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
)

const stopHelp = `Ask machines to sync their disks and power off, and wait until they have.

A machine that has not after the grace time is killed: what it had not synced
by then may be lost.`

func (a *app) vmStop() *cobra.Command {
	var grace graceFlag
	c := &cobra.Command{
		Use:               "stop [flags] VM…",
		Short:             "Power machines off",
		Long:              stopHelp,
		Example:           "  banger vm stop web db\n  banger vm stop --grace 1m db",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true, "running", "paused", "starting", "stopping", "faulty"),
		RunE: func(c *cobra.Command, refs []string) error {
			g, err := grace.value(c.Flags())
			if err != nil {
				return err
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
	grace.add(c.Flags(), "a machine has to power off, as in 30s (what is configured)")
	return c
}

// graceFlag is how long something has to end by itself.
type graceFlag struct{ d time.Duration }

// add adds the flag; what says what the time is for.
func (g *graceFlag) add(f *pflag.FlagSet, what string) {
	f.DurationVar(&g.d, "grace", 0, "`TIME` that "+what)
}

// value returns nil, for the default, if the flag was not given.
func (g *graceFlag) value(f *pflag.FlagSet) (*durationpb.Duration, error) {
	if !f.Changed("grace") {
		return nil, nil
	}
	if g.d < 0 {
		return nil, usage("--grace %s: it takes no negative time", g.d)
	}
	return durationpb.New(g.d), nil
}
