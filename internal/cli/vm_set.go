package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const setHelp = `Change the size of machines that are stopped, or when they are paused.

A size holds from the next start on. A work disk can only grow: its file system
is checked, and grows with it.

--auto-pause holds at once, also for a machine that runs.`

const setExamples = `  banger vm set --vcpus 4 --memory 8G build
  banger vm set --disk-size 50G db
  banger vm set --auto-pause 10m web`

func (a *app) vmSet() *cobra.Command {
	var size sizeFlags
	var autoPause autoPauseFlag
	c := &cobra.Command{
		Use:               "set [flags] VM…",
		Short:             "Change virtual CPUs, memory, work disk or auto-pause",
		Long:              setHelp,
		Example:           setExamples,
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			if err := size.check(c.Flags()); err != nil {
				return err
			}
			after, err := autoPause.value(c.Flags())
			if err != nil {
				return err
			}
			set := func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				return setVM(ctx, c, ref, size, after)
			}
			switch {
			case size != (sizeFlags{}):
				return a.eachVM(c.Context(), refs, "resize", "resized", set)
			case after != nil:
				return a.eachVM(c.Context(), refs, "change", "changed", set)
			}
			return errkind.WithHint(usage("%q takes --vcpus, --memory, --disk-size or --auto-pause", c.CommandPath()), c.CommandPath()+" --help")
		},
	}
	c.Flags().SortFlags = false
	size.add(c.Flags())
	autoPause.add(c.Flags())
	return c
}

func setVM(ctx context.Context, c *client.Client, ref string, s sizeFlags, autoPause *durationpb.Duration) (*api.VM, error) {
	resp, err := c.VM.Set(ctx, connect.NewRequest(&api.SetRequest{
		Vm: ref, VcpuCount: s.vcpus, MemoryBytes: s.memory, DiskBytes: s.disk, AutoPause: autoPause,
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetVm(), nil
}
