package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func (a *app) vmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "vm",
		Short: "Make, use and delete machines",
		Long: `Make, use and delete machines.

A machine is named by its name or by any unambiguous beginning of its id.`,
	}
	// In the order of help: what is used daily first.
	c.AddCommand(
		a.vmRun(), a.vmCreate(), a.vmExec(), a.vmSSH(), a.vmCp(),
		a.vmList(), a.vmShow(), a.vmStats(), a.vmLogs(),
		a.vmStart(), a.vmStop(), a.vmRestart(), a.vmSet(), a.vmKill(), a.vmDelete(), a.vmPrune(),
	)
	return asGroup(c)
}

// eachVM does something to several machines at once, and reports a line for
// each that it was done to. Do's progress names its machine if there are
// several.
func (a *app) eachVM(ctx context.Context, refs []string, verb, done string, do func(context.Context, *client.Client, string, func(*api.Progress)) (*api.VM, error)) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	refs = unique(refs)
	p.stage(verb + " " + strings.Join(refs, " "))
	vms, errs := make([]*api.VM, len(refs)), make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() {
			vms[i], errs[i] = do(ctx, c, ref, func(u *api.Progress) {
				if len(refs) == 1 {
					p.update("", u)
				} else {
					p.update(ref, u)
				}
			})
		})
	}
	wg.Wait()
	p.stop()
	return a.report(refs, vms, errs, verb, done)
}

// report tells what became of each machine; one that is nil needs no word.
func (a *app) report(refs []string, vms []*api.VM, errs []error, verb, done string) error {
	var failed failures
	list := &api.ListResponse{}
	for i, ref := range refs {
		if errs[i] != nil {
			failed = append(failed, cannot(verb+" "+ref, errs[i]))
			continue
		}
		if vms[i] == nil {
			continue
		}
		list.Vms = append(list.Vms, vms[i])
		if !a.json {
			if err := a.print(fmt.Appendf(nil, "%s %s\n", clean(vms[i].GetName()), done)); err != nil {
				return err
			}
		}
	}
	if a.json {
		if err := a.printDoc(list); err != nil {
			return err
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}
