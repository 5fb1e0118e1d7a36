package cli

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const listHelp = `List machines, with their state and why they are in it.`

func (a *app) vmList() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:               "list [flags]",
		Aliases:           []string{"ls"},
		Short:             "List machines",
		Long:              listHelp,
		Example:           "  banger vm list\n  banger vm list --json",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("list machines", a.listVMs(c.Context(), all))
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also those that banger keeps for itself")
	return c
}

// psAlias is "banger ps".
func (a *app) psAlias() *cobra.Command {
	c := a.vmList()
	c.Use, c.Aliases = "ps [flags]", nil
	c.Short = `The same as "vm list"`
	c.Example = "  banger ps\n  banger ps --json"
	return c
}

func (a *app) listVMs(ctx context.Context, all bool) error {
	var list *api.ListResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.VM.List(ctx, connect.NewRequest(&api.ListRequest{All: all}))
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
	now := time.Now()
	t := &table{head: []string{"NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "DISK", "CREATED", "REASON"}, color: stateColor}
	for _, v := range list.Vms {
		t.add(v.Name, v.State, v.Image, strconv.Itoa(int(v.VcpuCount)), size(v.MemoryBytes), size(v.DiskBytes), age(v.CreatedAt, now), v.StateReason)
	}
	return a.printTable(t)
}

// stateColor colours the second column of a list of machines.
func stateColor(column int, state string) string {
	if column != 1 {
		return ""
	}
	switch state {
	case "running":
		return "32" // green
	case "faulty":
		return "31" // red
	case "stopped", "created":
		return "2" // faint
	}
	return "33" // yellow: on its way
}

// ask makes one quick call, with progress if it is not.
func (a *app) ask(ctx context.Context, call func(context.Context, *client.Client) error) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	p.brief("wait for the daemon")
	return call(ctx, c)
}
