package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const deleteHelp = `Delete machines with their disks, for good. One that runs is ended at once.`

func (a *app) vmDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete VM…",
		Aliases:           []string{"rm"},
		Short:             "Delete machines with their disks",
		Long:              deleteHelp,
		Example:           "  banger vm delete web db",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			return a.eachVM(c.Context(), refs, "delete", "deleted", func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.VM, error) {
				resp, err := c.VM.Delete(ctx, connect.NewRequest(&api.DeleteRequest{Vm: ref}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Vm, nil
			})
		},
	}
}
