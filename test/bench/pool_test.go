//go:build bench

package bench

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger/internal/trace"
)

// poolRows are runs in a machine that waits in the pool, and how much of such a
// run is banger's own doing. They want one to wait, and leave one too few.
func (b *bench) poolRows() []*row {
	file := filepath.Join(b.root, "trace.json")
	share := &row{name: "banger's own share of it, by the trace", goal: within(20 * time.Millisecond)}
	share.once = share.last // measured with the run
	return []*row{
		{name: "`vm run -- cat /etc/hostname`, pooled, with a network", goal: both(within(75*time.Millisecond), quantileWithin(0.99, 200*time.Millisecond)), once: func() time.Duration {
			took := b.time("vm", "run", "--from", "pool", "--trace", file, "--", "cat", "/etc/hostname")
			share.took = append(share.took, b.ownShare(file))
			return took
		}},
		share,
	}
}

// fillPool has a machine with such a network come to wait in the pool, of a
// template that is made if there is none.
func (b *bench) fillPool(network string) {
	b.t.Helper()
	b.banger("bench", "-n", "1", "--rows", "pooled", "--network", network)
}

// A listed is what the benchmarks take of a machine in `vm list --all`.
type listed struct{ Name, State, Purpose string }

func (b *bench) listAll() []listed {
	b.t.Helper()
	var list struct{ VMs []listed }
	b.json(&list, "vm", "list", "--all")
	return list.VMs
}

// awaitPool waits until n machines wait in the pool.
func (b *bench) awaitPool(n int) {
	b.t.Helper()
	const limit = 2 * time.Minute
	waits := func(v listed) bool { return v.Purpose == "pool" && v.State == "paused" }
	for began := time.Now(); ; check(b.t, wait(b.t.Context(), 50*time.Millisecond)) {
		list := b.listAll()
		if len(slices.DeleteFunc(slices.Clone(list), func(v listed) bool { return !waits(v) })) == n {
			return
		}
		if time.Since(began) > limit {
			b.t.Fatalf("after %s not %d machines wait in the pool, but there are %+v", limit, n, list)
		}
	}
}

// A span is a time within a trace, in microseconds.
type span struct{ from, to float64 }

// ownShare is how long a run took that a trace is of, without the time in which
// VMM or guest were at work.
func (b *bench) ownShare(file string) time.Duration {
	text, err := os.ReadFile(file)
	check(b.t, err)
	var doc struct {
		Events []struct {
			Cat, Ph string
			Ts, Dur float64
		} `json:"traceEvents"`
	}
	check(b.t, json.Unmarshal(text, &doc))
	var all, others []span
	for _, e := range doc.Events {
		if e.Ph != "X" {
			continue
		}
		s := span{e.Ts, e.Ts + e.Dur}
		all = append(all, s)
		if e.Cat == trace.VMM || e.Cat == trace.Guest {
			others = append(others, s)
		}
	}
	if len(others) == 0 {
		b.t.Fatalf("the trace has nothing of VMM or guest:\n%s", text)
	}
	first := slices.MinFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	last := slices.MaxFunc(all, func(a, b span) int { return cmp.Compare(a.to, b.to) })
	own := last.to - first.from - covered(others)
	return time.Duration(own * float64(time.Microsecond))
}

// covered is how much time spans cover, what several do counted once.
func covered(spans []span) (sum float64) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	to := spans[0].from
	for _, s := range spans {
		sum += max(0, s.to-max(s.from, to))
		to = max(to, s.to)
	}
	return sum
}
