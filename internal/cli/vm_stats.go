package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const statsHelp = `Show what machines use: all that are up, or those that are named.

On a terminal the table stays and is renewed each second until Ctrl-C; "--once"
prints it once, as is done elsewhere. What has been carried and read is counted
since the machine's start. ROOT and WORK are what its disks take of this host's
file system; MEMORY is the guest's, HOST what the machine takes of this host.`

// statsEvery is the time between two looks, of which the use of the processors
// is told; onceAfter is that of a table that is printed once.
const (
	statsEvery = time.Second
	onceAfter  = 300 * time.Millisecond
)

func (a *app) vmStats() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:               "stats [flags] [VM…]",
		Short:             "Show what machines use",
		Long:              statsHelp,
		Example:           "  banger vm stats\n  banger vm stats --json web",
		ValidArgsFunction: a.completeVMs(true),
		RunE: func(c *cobra.Command, refs []string) error {
			_, live := terminal(a.Out)
			return cannot("show what machines use", a.stats(c.Context(), refs, live && !once && !a.json))
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print the table once, also on a terminal")
	return c
}

func (a *app) stats(ctx context.Context, refs []string, live bool) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	c, err := a.connect(ctx, p)
	p.stop() // the table has the line
	if err != nil {
		return err
	}
	defer c.Close()
	first, err := askStats(ctx, c, refs)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printDoc(first)
	case live:
		return a.followStats(ctx, c, refs, first)
	}
	_, now, err := nextStats(ctx, c, refs, first, onceAfter)
	if err != nil {
		return err
	}
	if len(now.rows) == 0 {
		a.note("no machine is up; to start one: %s", a.hint("banger vm run"))
		return nil
	}
	return a.printTable(now)
}

// followStats renews the table until ctx ends. Each is written over the one
// before, and what is left of that below is cleared.
func (a *app) followStats(ctx context.Context, c *client.Client, refs []string, before *api.StatsResponse) error {
	for lines := 0; ; {
		now, t, err := nextStats(ctx, c, refs, before, statsEvery)
		if err != nil {
			return err
		}
		before = now
		text := a.layOut(t, a.Out)
		up := ""
		if lines > 0 {
			up = fmt.Sprintf("\x1b[%dA\r", lines)
		}
		lines = strings.Count(text, "\n")
		text = strings.ReplaceAll(text, "\n", "\x1b[K\n")
		if err := a.print([]byte(up + text + "\x1b[J")); err != nil {
			return err
		}
	}
}

// nextStats looks again some time after before, and returns the table of what
// was used between them.
func nextStats(ctx context.Context, c *client.Client, refs []string, before *api.StatsResponse, after time.Duration) (*api.StatsResponse, *table, error) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	now, err := askStats(ctx, c, refs)
	if err != nil {
		return nil, nil, err
	}
	return now, statsTable(before, now), nil
}

func askStats(ctx context.Context, c *client.Client, refs []string) (*api.StatsResponse, error) {
	resp, err := c.VM.Stats(ctx, connect.NewRequest(&api.StatsRequest{Vms: refs}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func statsTable(before, now *api.StatsResponse) *table {
	t := &table{head: []string{"NAME", "CPU", "MEMORY", "HOST", "NET IN", "NET OUT", "READ", "WRITTEN", "ROOT", "WORK", "UP"}}
	was := make(map[string]*api.VMStats)
	for _, s := range before.GetVms() {
		was[s.GetId()] = s
	}
	for _, s := range now.GetVms() {
		memory := ""
		if g := s.GetGuest(); g != nil {
			memory = amount(g.GetMemoryBytes()-g.GetMemoryAvailableBytes()) + " of " + amount(g.GetMemoryBytes())
		}
		t.add(s.GetName(), share(was[s.GetId()], s), memory, amount(s.GetResidentBytes()),
			amount(s.GetNetInBytes()), amount(s.GetNetOutBytes()), amount(s.GetDiskReadBytes()), amount(s.GetDiskWrittenBytes()),
			amount(s.GetRootDiskBytes()), amount(s.GetWorkDiskBytes()), briefly(time.Duration(s.GetUptimeSeconds()*float64(time.Second))))
	}
	return t
}

// share is how much of one processor a machine used between two looks.
func share(before, now *api.VMStats) string {
	took := now.GetAt().AsTime().Sub(before.GetAt().AsTime()).Seconds() // nil: since 1970
	used := now.GetCpuSeconds() - before.GetCpuSeconds()
	if before == nil || took <= 0 || used < 0 {
		return "" // it was started meanwhile
	}
	return fmt.Sprintf("%.0f%%", 100*used/took)
}

// amount is size, for numbers of which 0 is one.
func amount(n int64) string {
	if n == 0 {
		return "0"
	}
	return size(n)
}
