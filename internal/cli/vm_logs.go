package cli

import (
	"context"
	"errors"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/errkind"
)

const logsHelp = `Print what a machine's kernel and init wrote to its serial console.

With -f it goes on with what comes, also when the machine is stopped and started
again, until it is deleted or you interrupt. The log is limited in size: the
oldest part goes.`

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
	c.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with what comes")
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
	if req.Follow {
		var done func()
		ctx, done = a.whileRead(ctx)
		defer done()
	}
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
	if err := stream.Err(); !req.Follow || !errors.Is(err, api.ErrLost) {
		return err
	}
	return errkind.WithHint(stream.Err(), "banger vm logs -f "+errkind.Quote(req.Vm))
}

// whileRead returns a context that ends when our output is a pipe that nobody
// reads any more: a console may be silent for long, and writing tells only
// then. It may leave a goroutine behind that waits for that.
func (a *app) whileRead(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if f, ok := a.Out.(*os.File); ok && isPipe(f) {
		go func() {
			// Whatever is asked for, poll(2) tells that the other end is closed.
			fds := []unix.PollFd{{Fd: int32(f.Fd())}}
			for {
				n, err := unix.Poll(fds, -1)
				if n == 1 {
					cancel(&outputError{unix.EPIPE})
				}
				if !errors.Is(err, unix.EINTR) {
					return
				}
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

func isPipe(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}
