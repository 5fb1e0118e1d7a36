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
	return awaitVM(stream, err, progress)
}

// A vmAnswer is one message of a call that tells of progress and last of a
// machine.
type vmAnswer[M any] interface {
	*M
	GetProgress() *api.Progress
	GetVm() *api.VM
}

// awaitVM passes progress on until the machine is told of; err is why the call
// could not begin. The stream is closed in the end.
func awaitVM[M any, A vmAnswer[M]](stream *connect.ServerStreamForClient[M], err error, progress func(*api.Progress)) (*api.VM, error) {
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		msg := A(stream.Msg())
		if u := msg.GetProgress(); u != nil {
			progress(u)
		} else if vm := msg.GetVm(); vm != nil {
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
