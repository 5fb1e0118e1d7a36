package cli

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const daemonHelp = `The daemon does everything on the host. It is started by itself when a command
needs it, and may be stopped or killed at any time: machines go on.`

func (a *app) daemonCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "daemon",
		Short: "What does the work: start, stop, ask",
		Long:  daemonHelp,
	}
	c.AddCommand(a.daemonStart(), a.daemonStatus(), a.daemonStop())
	return asGroup(c)
}

func (a *app) daemonStart() *cobra.Command {
	return &cobra.Command{
		Use:               "start",
		Short:             "Start the daemon, if none runs",
		Example:           "  banger daemon start",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("start the daemon", a.status(c.Context(), true))
		},
	}
}

const statusHelp = `Show what daemon runs. If none does, the exit code is 3; none is started.`

func (a *app) daemonStatus() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "Show what daemon runs",
		Long:              statusHelp,
		Example:           "  banger daemon status",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.status(c.Context(), false)
		},
	}
}

// status prints what the daemon is, which is started first if it is to be.
func (a *app) status(ctx context.Context, start bool) error {
	st, err := a.askStatus(ctx, start)
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(st)
	}
	var f facts
	f.add("pid", strconv.Itoa(int(st.Pid)))
	f.add("version", st.Version)
	f.add("root", st.Root)
	f.add("socket", st.Socket)
	f.add("dns", st.DnsAddr)
	driver := st.Driver
	if driver == "" {
		driver = "none"
	}
	if st.DriverReason != "" {
		driver += " (" + st.DriverReason + ")"
	}
	f.add("driver", driver)
	f.add("started", moment(st.StartedAt, time.Now()))
	for _, w := range st.Warnings {
		f.add("warning", w)
	}
	return a.printFacts(f)
}

func (a *app) askStatus(ctx context.Context, start bool) (*api.StatusResponse, error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	o, err := a.daemon()
	if err != nil {
		return nil, err
	}
	if start {
		p.stage("start the daemon")
		if err := client.Ensure(ctx, o); err != nil {
			return nil, err
		}
	}
	c := client.New(o.Paths.Socket())
	defer c.Close()
	if err := c.Ping(ctx); client.IsNone(err) {
		return nil, a.noDaemon()
	} else if err != nil {
		return nil, cannot("reach the daemon", err)
	}
	p.brief("wait for the daemon")
	resp, err := c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{}))
	if err != nil {
		return nil, cannot("ask the daemon", err)
	}
	return resp.Msg, nil
}

func (a *app) noDaemon() error {
	hint := "sudo banger daemon start"
	if a.env.Root {
		hint = "banger daemon start"
	}
	return errkind.WithHint(errkind.New(errkind.NotFound, "no daemon runs"), hint)
}

const stopDaemonHelp = `Stop the daemon and wait until it is gone. Machines go on. If none runs, there
is nothing to do.`

func (a *app) daemonStop() *cobra.Command {
	return &cobra.Command{
		Use:               "stop",
		Short:             "Stop the daemon; machines go on",
		Long:              stopDaemonHelp,
		Example:           "  banger daemon stop",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("stop the daemon", a.stopDaemon(c.Context()))
		},
	}
}

func (a *app) stopDaemon(ctx context.Context) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	paths, err := a.paths()
	if err != nil {
		return err
	}
	p.stage("stop the daemon")
	if err := client.Stop(ctx, paths); err != nil && !client.IsNone(err) {
		return err
	}
	p.stop()
	if a.json {
		return a.printDoc(&api.ShutdownResponse{})
	}
	return nil
}
