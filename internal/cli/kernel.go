package cli

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func (a *app) kernelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "kernel",
		Short: "What machines boot",
	}
	c.AddCommand(a.kernelPull(), a.kernelImport(), a.kernelList(), a.kernelShow(), a.kernelDelete())
	return asGroup(c)
}

func (a *app) kernelPull() *cobra.Command {
	return &cobra.Command{
		Use:     "pull KERNEL",
		Short:   "Fetch the newest version of a kernel",
		Example: "  banger kernel pull debian-cloud",
		Args:    exactly(1, "one kernel"),
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"debian-cloud"},
			cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := a.pull(c.Context(), args[0])
			if err != nil {
				return cannot("pull kernel "+args[0], err)
			}
			return a.printKernel(k)
		},
	}
}

func (a *app) pull(ctx context.Context, name string) (*api.Kernel, error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p.stage("pull kernel " + name)
	stream, err := c.Kernel.PullKernel(ctx, connect.NewRequest(&api.PullKernelRequest{Name: name}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if u := stream.Msg().GetProgress(); u != nil {
			p.update("", u)
		} else if k := stream.Msg().GetKernel(); k != nil {
			return k, nil
		}
	}
	return nil, ended(stream.Err())
}

// printKernel tells of a kernel that is new.
func (a *app) printKernel(k *api.Kernel) error {
	if a.json {
		return a.printDoc(k)
	}
	return a.print([]byte(clean(k.Name+" "+k.Version) + "\n"))
}

func (a *app) kernelList() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             "List kernels that are there",
		Example:           "  banger kernel list",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("list kernels", a.listKernels(c.Context()))
		},
	}
}

func (a *app) listKernels(ctx context.Context) error {
	var list *api.ListKernelsResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Kernel.ListKernels(ctx, connect.NewRequest(&api.ListKernelsRequest{}))
		if err == nil {
			list = resp.Msg
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(list)
	}
	if len(list.Kernels) == 0 {
		a.note("no kernels; to fetch one: %s", a.hint("banger kernel pull debian-cloud"))
		return nil
	}
	now := time.Now()
	t := &table{head: []string{"NAME", "VERSION", "SOURCE", "SIZE", "AGE"}}
	for _, k := range list.Kernels {
		t.add(k.Name, k.Version, k.Source, size(k.SizeBytes), age(k.CreatedAt, now))
	}
	return a.printTable(t)
}

func (a *app) kernelShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show KERNEL",
		Short:             "Show a kernel",
		Example:           "  banger kernel show debian-cloud",
		Args:              exactly(1, "one kernel"),
		ValidArgsFunction: once(a.completeKernels()),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("show kernel "+args[0], a.showKernel(c.Context(), args[0]))
		},
	}
}

func (a *app) showKernel(ctx context.Context, name string) error {
	var k *api.Kernel
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Kernel.ShowKernel(ctx, connect.NewRequest(&api.ShowKernelRequest{Name: name}))
		if err == nil {
			k = resp.Msg.Kernel
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(k)
	}
	var f facts
	f.add("name", k.Name)
	f.add("version", k.Version)
	f.add("source", k.Source)
	f.add("package", k.PackageVersion)
	f.add("size", size(k.SizeBytes))
	f.add("created", moment(k.CreatedAt, time.Now()))
	f.add("kernel", k.VmlinuxPath)
	f.add("modules", k.ModulesPath)
	return a.printFacts(f)
}

func (a *app) kernelDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete KERNEL…",
		Aliases:           []string{"rm"},
		Short:             "Delete kernels that no machine uses",
		Example:           "  banger kernel delete mine",
		Args:              atLeastOne("one kernel or more"),
		ValidArgsFunction: a.completeKernels(),
		RunE: func(c *cobra.Command, names []string) error {
			return a.eachName(c.Context(), "kernel", names, func(ctx context.Context, c *client.Client, name string) error {
				_, err := c.Kernel.DeleteKernel(ctx, connect.NewRequest(&api.DeleteKernelRequest{Name: name}))
				return err
			})
		},
	}
}
