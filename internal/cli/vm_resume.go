package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const resumeHelp = `Let machines go on that were paused, with clocks that are right.

One that stands because the host's disk is full goes on by itself when there is
room.`

func (a *app) vmResume() *cobra.Command {
	return &cobra.Command{
		Use:               "resume VM…",
		Short:             "Let paused machines go on",
		Long:              resumeHelp,
		Example:           "  banger vm resume web",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true, "paused"),
		RunE: func(c *cobra.Command, refs []string) error {
			return a.eachVM(c.Context(), refs, "resume", "resumed", func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				resp, err := c.VM.Resume(ctx, connect.NewRequest(&api.ResumeRequest{Vm: ref}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Vm, nil
			})
		},
	}
}
