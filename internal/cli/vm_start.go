package cli

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

func (a *app) vmStart() *cobra.Command {
	return &cobra.Command{
		Use:               "start VM…",
		Short:             "Start machines that are stopped",
		Example:           "  banger vm start web",
		Args:              atLeastOne("one machine or more"),
		ValidArgsFunction: a.completeVMs(true, "created", "stopped"),
		RunE: func(c *cobra.Command, refs []string) error {
			return a.eachVM(c.Context(), refs, "start", "started", startVM)
		},
	}
}

func startVM(ctx context.Context, c *client.Client, ref string, progress func(*api.Progress)) (*api.VM, error) {
	stream, err := c.VM.Start(ctx, connect.NewRequest(&api.StartRequest{Vm: ref}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if u := stream.Msg().GetProgress(); u != nil {
			progress(u)
		} else if vm := stream.Msg().GetVm(); vm != nil {
			return vm, nil
		}
	}
	return nil, ended(stream.Err())
}

// ended is the error of a stream that ended before its last message.
func ended(err error) error {
	if err != nil {
		return err
	}
	return errkind.Wrap(errkind.Internal, errors.New("the daemon ended the call without an answer"))
}
