package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const pruneHelp = `Delete every machine that is stopped or was never started, with its disks, for
good. What would go is shown first, and you are asked.

A machine that somebody starts meanwhile stays.

With --pool it is the machines that wait, paused, for somebody to ask for one
like them, and no others; nobody is asked, for the next run makes new ones.`

const pruneExamples = `  banger vm prune
  banger vm prune -f --label team=ci
  banger vm prune --pool`

func (a *app) vmPrune() *cobra.Command {
	filter := filterFlags{}
	var force, pool bool
	c := &cobra.Command{
		Use:               "prune [flags]",
		Short:             "Delete all machines that are stopped",
		Long:              pruneHelp,
		Example:           pruneExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := filter.check(); err != nil {
				return err
			}
			if pool && len(filter.req.Labels) > 0 {
				return usage("--pool: machines that wait in the pool have no labels")
			}
			if pool {
				return cannot("drain the pool", a.drainPool(c.Context()))
			}
			return cannot("prune machines", a.prune(c.Context(), &filter, force))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().BoolVar(&pool, "pool", false, "the machines that wait in the pool instead")
	filter.addLabels(c.Flags())
	completeFlag(c, "label", a.completeLabels())
	return c
}

func (a *app) prune(ctx context.Context, filter *filterFlags, force bool) error {
	if !force && !a.canAsk() {
		return errkind.WithHint(usage("there is no terminal to ask at"), "banger vm prune -f"+labelArgs(filter.req.Labels))
	}
	filter.req.States = []string{"created", "stopped"}
	list, err := a.listVMs(ctx, &filter.req)
	if err != nil {
		return err
	}
	vms := slices.DeleteFunc(list.Vms, func(v *api.VM) bool { return v.Ephemeral }) // a call's own
	if len(vms) == 0 {
		a.note("nothing to prune: no such machine is stopped")
		if a.json {
			return a.printDoc(&api.ListResponse{})
		}
		return nil
	}
	if !force {
		if yes, err := a.askPrune(ctx, vms); !yes {
			return err
		}
	}
	return a.deleteStopped(ctx, vms)
}

func (a *app) drainPool(ctx context.Context) error {
	var n int32
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.VM.DrainPool(ctx, connect.NewRequest(&api.DrainPoolRequest{}))
		if err == nil {
			n = resp.Msg.Deleted
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(&api.DrainPoolResponse{Deleted: n})
	}
	a.note("machines deleted that waited in the pool: %d", n)
	return nil
}

// labelArgs are the flags of a filter.
func labelArgs(labels []string) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(" --label " + errkind.Quote(l))
	}
	return b.String()
}

// askPrune shows what would go and asks whether it may.
func (a *app) askPrune(ctx context.Context, vms []*api.VM) (bool, error) {
	fmt.Fprint(a.Err, a.layOut(vmTable(vms, time.Now()), a.Err))
	question := fmt.Sprintf("Delete %d machines with their disks?", len(vms))
	if len(vms) == 1 {
		question = fmt.Sprintf("Delete %s with its disks?", clean(vms[0].Name))
	}
	yes, err := a.confirm(ctx, question)
	if err == nil && !yes {
		a.note("nothing is deleted")
	}
	return yes, err
}

// deleteStopped deletes the machines that are still stopped. One that is not
// any more, or is gone, is no failure.
func (a *app) deleteStopped(ctx context.Context, vms []*api.VM) error {
	var names []string
	ids := make(map[string]string) // what has that name by now may be another
	for _, v := range vms {
		names = append(names, v.Name)
		ids[v.Name] = v.Id
	}
	var mu sync.Mutex
	var stay []string // guarded by mu
	err := a.eachVM(ctx, names, "delete", "deleted", func(ctx context.Context, c *client.Client, name string, _ func(*api.Progress)) (*api.VM, error) {
		resp, err := c.VM.Delete(ctx, connect.NewRequest(&api.DeleteRequest{Vm: ids[name], StoppedOnly: true}))
		switch errkind.Of(err) {
		case "":
			return resp.Msg.Vm, nil
		case errkind.NotFound:
			return nil, nil
		case errkind.Conflict:
			mu.Lock()
			defer mu.Unlock()
			stay = append(stay, err.Error())
			return nil, nil
		}
		return nil, err
	})
	slices.Sort(stay)
	for _, why := range stay {
		a.note("%s, and stays", why)
	}
	return err
}

// canAsk reports whether there is somebody to ask.
func (a *app) canAsk() bool {
	_, in := terminal(a.In)
	_, out := terminal(a.Err)
	return in && out
}

// confirm asks a question that "y" or "yes" says yes to. It may leave a
// goroutine behind that reads a.In.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.In).ReadString('\n') // no answer is no
		answer <- line
	}()
	select {
	case line := <-answer:
		if !strings.HasSuffix(line, "\n") {
			fmt.Fprintln(a.Err)
		}
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return false, context.Cause(ctx)
	}
}
