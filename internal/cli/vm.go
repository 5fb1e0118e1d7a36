package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

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
		a.vmRun(), a.vmCreate(), a.vmExec(), a.vmSession(), a.vmSSH(), a.vmCp(),
		a.vmList(), a.vmShow(), a.vmStats(), a.vmLogs(),
		a.vmStart(), a.vmStop(), a.vmRestart(), a.vmSet(), a.vmPause(), a.vmResume(), a.vmKill(), a.vmDelete(), a.vmPrune(),
	)
	return asGroup(c)
}

// eachVM does something to several machines at once, and reports a line for
// each that it was done to. Do's progress names its machine if there are
// several.
func (a *app) eachVM(ctx context.Context, refs []string, verb, done string, do func(context.Context, *client.Client, string, func(*api.Progress)) (*api.VM, error)) error {
	b := batch[*api.VM]{
		doing: func(ref string) string { return verb + " " + ref }, done: done, do: do,
		doc: func(vms []*api.VM) proto.Message { return &api.ListResponse{Vms: vms} },
	}
	return b.run(ctx, a, unique(refs))
}

// A batch is one thing to do to several others of a kind.
type batch[T interface {
	comparable
	GetName() string
}] struct {
	doing func(ref string) string // "stop web"
	done  string                  // "stopped"
	do    func(ctx context.Context, c *client.Client, ref string, progress func(*api.Progress)) (T, error)
	doc   func([]T) proto.Message // for --json
}

// run does it to all at once. Refs are distinct.
func (b *batch[T]) run(ctx context.Context, a *app, refs []string) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	p.stage(b.doing(strings.Join(refs, " ")))
	made, errs := make([]T, len(refs)), make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() {
			made[i], errs[i] = b.do(ctx, c, ref, func(u *api.Progress) {
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
	return b.report(a, refs, made, errs)
}

// report tells what became of each; one that is nil needs no word.
func (b *batch[T]) report(a *app, refs []string, made []T, errs []error) error {
	var failed failures
	var list []T
	var none T
	for i, ref := range refs {
		if errs[i] != nil {
			failed = append(failed, cannot(b.doing(ref), errs[i]))
			continue
		}
		if made[i] == none {
			continue
		}
		list = append(list, made[i])
		if !a.json {
			if err := a.print(fmt.Appendf(nil, "%s %s\n", clean(made[i].GetName()), b.done)); err != nil {
				return err
			}
		}
	}
	if a.json {
		if err := a.printDoc(b.doc(list)); err != nil {
			return err
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}
