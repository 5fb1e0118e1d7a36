package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const setHelp = `Change the size of machines that are stopped. It holds from their next start on.

A work disk can only grow: its file system is checked, and grows with it.`

func (a *app) vmSet() *cobra.Command {
	var size sizeFlags
	c := &cobra.Command{
		Use:               "set [flags] VM…",
		Short:             "Change virtual CPUs, memory or work disk",
		Long:              setHelp,
		Example:           "  banger vm set --vcpus 4 --memory 8G build\n  banger vm set --disk-size 50G db",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			if err := size.check(c.Flags()); err != nil {
				return err
			}
			if size == (sizeFlags{}) {
				return errkind.WithHint(usage("%q takes --vcpus, --memory or --disk-size", c.CommandPath()), c.CommandPath()+" --help")
			}
			return a.eachVM(c.Context(), refs, "resize", "resized", size.set)
		},
	}
	c.Flags().SortFlags = false
	size.add(c.Flags())
	return c
}

func (s *sizeFlags) set(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
	resp, err := c.VM.Set(ctx, connect.NewRequest(&api.SetRequest{Vm: ref, VcpuCount: s.vcpus, MemoryBytes: s.memory, DiskBytes: s.disk}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetVm(), nil
}
