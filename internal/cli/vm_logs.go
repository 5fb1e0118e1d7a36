package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
)

const logsHelp = `Print what a machine's kernel and init wrote to its serial console.

The log is limited in size: the oldest part goes.`

func (a *app) vmLogs() *cobra.Command {
	req := &api.LogsRequest{}
	c := &cobra.Command{
		Use:               "logs [flags] VM",
		Short:             "Print a machine's console",
		Long:              logsHelp,
		Example:           "  banger vm logs web\n  banger vm logs -f --tail 20 web",
		Args:              exactly(1, "one machine"),
		ValidArgsFunction: a.completeVMs(false),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("tail") && req.Tail < 1 {
				return usage("--tail %d: it takes a number above zero", req.Tail)
			}
			req.Vm = args[0]
			return cannot("print the log of "+args[0], a.logs(c.Context(), req))
		},
	}
	c.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with what comes, until interrupted")
	c.Flags().Int32VarP(&req.Tail, "tail", "n", 0, "begin with the last `LINES`")
	return c
}

func (a *app) logs(ctx context.Context, req *api.LogsRequest) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	p.stop()
	stream, err := c.VM.Logs(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := a.print(stream.Msg().Data); err != nil {
			return err
		}
	}
	return stream.Err()
}
