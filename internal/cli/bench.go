package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/errkind"
)

const benchHelp = `Measure how long a machine takes on this host. The rows are measured in turns,
so that what else the host does is in all of them:

  cold      a new machine boots and runs "cat /etc/hostname"
  restored  the same from a template; if there is none, it is made first
  pooled    the same in one that waits in the pool
  exec      "cat /etc/hostname" in a machine that runs
  resume    the same in a machine that was paused
  docker    "docker run --rm debian:bookworm-slim cat /etc/hostname", if Docker
            answers and has the image, which is not pulled

A time is from the request to the command's exit; of docker, from the start of
its program to the command's output. GONE is the median to the end of the call,
when the new machine or container is deleted. A first turn is not counted.`

const benchExamples = `  banger bench
  banger bench -n 50 --rows cold,restored --image busybox
  banger bench --json > figures.json`

// maxTurns bounds how often a row is measured.
const maxTurns = 100_000

// benchOptions are what to measure.
type benchOptions struct {
	image, network string
	n              int
	rows           []string // as they were asked for; empty: all
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:               "bench [flags]",
		Short:             "Measure how long machines take on this host",
		Long:              benchHelp,
		Example:           benchExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			kinds, err := o.kinds(c.Flags().Changed("rows"))
			if err != nil {
				return err
			}
			return cannot("measure", a.bench(c.Context(), o, kinds))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.image, "image", "", "`NAME` of the image that machines stand on")
	f.IntVarP(&o.n, "number", "n", 20, "`NUMBER` of times that each row is measured")
	f.StringSliceVar(&o.rows, "rows", nil, "`ROWS` to measure, with commas between them (all)")
	f.StringVar(&o.network, "network", "", "`MODE`: nat (through the host), or none")
	completeFlag(c, "image", a.completeImages())
	completeFlag(c, "rows", cobra.FixedCompletions(benchNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// kinds returns the rows to measure, in their order.
func (o benchOptions) kinds(chosen bool) ([]benchKind, error) {
	if o.n < 1 || o.n > maxTurns {
		return nil, usage("--number %d: it takes 1 to %d", o.n, maxTurns)
	}
	if !chosen {
		return benchKinds, nil
	}
	for _, name := range o.rows {
		if !slices.Contains(benchNames(), name) {
			return nil, usage("--rows: there is no row %s; there is %s", errkind.Quote(name), strings.Join(benchNames(), ", "))
		}
	}
	if len(o.rows) == 0 {
		return nil, usage("--rows is empty")
	}
	return slices.DeleteFunc(slices.Clone(benchKinds), func(k benchKind) bool { return !slices.Contains(o.rows, k.name) }), nil
}

// bench measures and prints. However it ends, none of its machines is left.
func (a *app) bench(ctx context.Context, o benchOptions, kinds []benchKind) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	b := newBench(a, c, p, o)
	r, err := b.measure(ctx, kinds)
	b.cleanUp()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	p.stop()
	if a.json {
		return a.printValue(r)
	}
	return a.printBench(r)
}

// newBench returns a bench that has measured nothing yet.
func newBench(a *app, c *client.Client, p *progress, o benchOptions) *bench {
	b := &bench{app: a, c: c, p: p, n: o.n, must: len(o.rows) > 0, tag: newBenchTag()}
	b.spec.Image, b.spec.Network = o.image, o.network
	b.spec.Labels = map[string]string{benchLabel: b.tag}
	return b
}
