package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const templatePruneHelp = `Delete templates that are damaged and, with flags, those that are worth least.
What would go is shown first, and you are asked. What a machine stands on stays.

The daemon does the same by itself, as its configuration says.`

const templatePruneExamples = `  banger template prune
  banger template prune --unused 24h --max 10G
  banger template prune -f --unused 0s   # all that no machine stands on`

// templatePruneFlags say what goes beside what is damaged.
type templatePruneFlags struct {
	unused   time.Duration
	byUnused bool // unused was given
	max      int64
	force    bool
}

func (a *app) templatePrune() *cobra.Command {
	var f templatePruneFlags
	c := &cobra.Command{
		Use:               "prune [flags]",
		Short:             "Delete templates that nobody needs",
		Long:              templatePruneHelp,
		Example:           templatePruneExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			f.byUnused = c.Flags().Changed("unused")
			if f.unused < 0 {
				return usage("--unused %s: it takes no negative time", f.unused)
			}
			return cannot("prune templates", a.pruneTemplates(c.Context(), f))
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.BoolVarP(&f.force, "force", "f", false, "do not ask")
	fs.DurationVar(&f.unused, "unused", 0, "also those that were not used for this `TIME`, as in 24h")
	fs.Var(sizeFlag{&f.max}, "max", "also the least recently used, until all take no more, as in 10G")
	return c
}

// request asks for what is to go.
func (f templatePruneFlags) request() *api.PruneTemplatesRequest {
	req := &api.PruneTemplatesRequest{MaxBytes: f.max}
	if f.byUnused {
		req.UnusedFor = durationpb.New(f.unused)
	}
	return req
}

// args are the flags as they can be given again.
func (f templatePruneFlags) args() string {
	args := ""
	if f.byUnused {
		args += " --unused " + f.unused.String()
	}
	if f.max > 0 {
		args += fmt.Sprintf(" --max %d", f.max)
	}
	return args
}

func (a *app) pruneTemplates(ctx context.Context, f templatePruneFlags) error {
	req := f.request()
	if !f.force {
		if !a.canAsk() {
			return errkind.WithHint(usage("there is no terminal to ask at"), "banger template prune -f"+f.args())
		}
		yes, err := a.askTemplates(ctx, req)
		switch {
		case err != nil:
			return err
		case len(req.Ids) == 0:
			return a.nothingPruned(f)
		case !yes:
			return nil
		}
	}
	gone, err := a.callPrune(ctx, req)
	if err == nil && len(gone) == 0 {
		return a.nothingPruned(f)
	}
	if perr := a.printPruned(gone); perr != nil {
		return perr
	}
	return err
}

// askTemplates shows what would go and asks whether it may. It makes req ask for
// that alone, which is nothing if there is none.
func (a *app) askTemplates(ctx context.Context, req *api.PruneTemplatesRequest) (bool, error) {
	req.DryRun = true
	ts, err := a.callPrune(ctx, req)
	if err != nil || len(ts) == 0 {
		return false, err
	}
	req.DryRun = false
	for _, t := range ts {
		req.Ids = append(req.Ids, t.Id)
	}
	fmt.Fprint(a.Err, a.layOut(templateTable(ts, time.Now()), a.Err))
	question := fmt.Sprintf("Delete %d templates of %s?", len(ts), sizeOf(ts))
	if len(ts) == 1 {
		question = fmt.Sprintf("Delete template %s of %s?", shortID(ts[0].Id), sizeOf(ts))
	}
	yes, err := a.confirm(ctx, question)
	if err == nil && !yes {
		a.note("nothing is deleted")
	}
	return yes, err
}

// callPrune returns what went, or would, also with an error.
func (a *app) callPrune(ctx context.Context, req *api.PruneTemplatesRequest) ([]*api.Template, error) {
	var ts []*api.Template
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		stream, err := c.Template.PruneTemplates(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		defer stream.Close()
		for stream.Receive() {
			ts = append(ts, stream.Msg().Template)
		}
		return stream.Err()
	})
	return ts, err
}

func (a *app) nothingPruned(f templatePruneFlags) error {
	if a.json {
		return a.printDoc(&api.ListTemplatesResponse{})
	}
	if f.args() != "" {
		a.note("nothing to prune: there is no such template")
		return nil
	}
	a.note("nothing to prune: no template is damaged; to delete all that no machine stands on: %s",
		a.hint("banger template prune --unused 0s"))
	return nil
}

// printPruned tells what went, and how much room that makes.
func (a *app) printPruned(gone []*api.Template) error {
	if a.json {
		return a.printDoc(&api.ListTemplatesResponse{Templates: gone})
	}
	for _, t := range gone {
		if err := a.print(fmt.Appendf(nil, "%s deleted\n", shortID(t.Id))); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		a.note("%s freed", sizeOf(gone))
	}
	return nil
}

// sizeOf writes how much of the disk templates take together.
func sizeOf(ts []*api.Template) string {
	var n int64
	for _, t := range ts {
		n += t.SizeBytes
	}
	if n == 0 {
		return "0"
	}
	return size(n)
}
