package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
)

const createHelp = `Make a machine that stays, and start it. Its name is printed.

Without a name one is made up.`

const createExamples = `  banger vm create web
  banger vm create --no-start --disk-size 20G build
  vm=$(banger vm create)`

func (a *app) vmCreate() *cobra.Command {
	var spec specFlags
	var noStart bool
	c := &cobra.Command{
		Use:     "create [flags] [NAME]",
		Short:   "Make a machine and start it",
		Long:    createHelp,
		Example: createExamples,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if c.Flags().Changed("name") {
				return usage("the name is given twice")
			}
			return exactly(1, "one name")(c, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if err := c.Flags().Set("name", args[0]); err != nil {
					return err
				}
			}
			s, err := spec.finish(c.Flags())
			if err != nil {
				return err
			}
			return a.create(c.Context(), &api.CreateRequest{Spec: s, NoStart: noStart, From: spec.from})
		},
	}
	c.Flags().SortFlags = false
	spec.add(c.Flags())
	a.completeSpec(c)
	c.Flags().BoolVar(&noStart, "no-start", false, "do not start it")
	return c
}

func (a *app) create(ctx context.Context, req *api.CreateRequest) error {
	what := "create a machine"
	if n := req.Spec.Name; n != "" {
		what = "create " + n
	}
	vm, err := a.createVM(ctx, what, req)
	if err != nil {
		return cannot(what, err)
	}
	if a.json {
		return a.printDoc(vm)
	}
	return a.print([]byte(clean(vm.Name) + "\n"))
}

func (a *app) createVM(ctx context.Context, what string, req *api.CreateRequest) (*api.VM, error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p.stage(what)
	stream, err := c.VM.Create(ctx, connect.NewRequest(req))
	return awaitVM(stream, err, func(u *api.Progress) { p.update("", u) })
}
