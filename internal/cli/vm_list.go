package cli

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/api"
	"banger/internal/api/client"
)

const listHelp = `List machines, with their state and why they are in it.

Labels and states narrow the list: a machine must have all of the labels and be
in one of the states. On a terminal what does not fit is cut; "--json" has
everything, "--names" is for scripts.`

const listExamples = `  banger vm list
  banger vm list --state running --label team=web
  banger vm stop $(banger vm list --names --state running)`

// vmStates are the states of machines, in the order of their lives.
var vmStates = []string{"created", "starting", "running", "paused", "stopping", "stopped", "deleting", "faulty"}

func (a *app) vmList() *cobra.Command {
	var filter filterFlags
	var names bool
	c := &cobra.Command{
		Use:               "list [flags]",
		Aliases:           []string{"ls"},
		Short:             "List machines",
		Long:              listHelp,
		Example:           listExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if names && a.json {
				return usage("--names and --json exclude each other")
			}
			if err := filter.check(); err != nil {
				return err
			}
			return cannot("list machines", a.printVMs(c.Context(), &filter, names))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	filter.addLabels(f)
	f.StringArrayVar(&filter.req.States, "state", nil, "only machines in this `STATE`; may be repeated")
	f.BoolVar(&names, "names", false, "print names alone, one to a line")
	f.BoolVarP(&filter.req.All, "all", "a", false, "also those that banger keeps for itself")
	completeFlag(c, "label", a.completeLabels())
	completeFlag(c, "state", cobra.FixedCompletions(vmStates, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// psAlias is "banger ps".
func (a *app) psAlias() *cobra.Command {
	c := a.vmList()
	c.Use, c.Aliases = "ps [flags]", nil
	c.Short = `The same as "vm list"`
	c.Example = strings.ReplaceAll(listExamples, "banger vm list", "banger ps")
	return c
}

// filterFlags say which machines are meant.
type filterFlags struct{ req api.ListRequest }

func (l *filterFlags) addLabels(f *pflag.FlagSet) {
	f.StringArrayVar(&l.req.Labels, "label", nil, "only machines with `KEY[=VALUE]`; may be repeated")
}

// check refuses labels that no machine can have.
func (l *filterFlags) check() error {
	for _, label := range l.req.Labels {
		if label == "" || label[0] == '=' {
			return usage("--label %q: write --label KEY or --label KEY=VALUE", label)
		}
	}
	return nil
}

// any reports whether some machines are not meant.
func (l *filterFlags) any() bool { return len(l.req.Labels)+len(l.req.States) > 0 }

func (a *app) listVMs(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error) {
	var list *api.ListResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.VM.List(ctx, connect.NewRequest(req))
		if err == nil {
			list = resp.Msg
		}
		return err
	})
	return list, err
}

func (a *app) printVMs(ctx context.Context, filter *filterFlags, names bool) error {
	list, err := a.listVMs(ctx, &filter.req)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printDoc(list)
	case names:
		var b strings.Builder
		for _, v := range list.Vms {
			b.WriteString(clean(v.Name) + "\n")
		}
		return a.print([]byte(b.String()))
	case len(list.Vms) > 0:
		return a.printTable(vmTable(list.Vms, time.Now()))
	case filter.any():
		a.note("no such machines; to see all: %s", a.hint("banger vm list"))
	default:
		a.note("no machines; to make one: %s", a.hint("banger vm run"))
	}
	return nil
}

// vmTable has what tells machines apart; sizes are in vm show.
func vmTable(vms []*api.VM, now time.Time) *table {
	t := &table{head: []string{"NAME", "STATE", "ADDRESS", "IMAGE", "AGE", "REASON"}, color: stateColor}
	for _, v := range vms {
		t.add(v.Name, v.State, v.GuestIp, v.Image, age(v.CreatedAt, now), v.StateReason)
	}
	return t
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
