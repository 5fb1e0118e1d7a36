//go:build bench

package bench

import (
	"testing"
	"time"
)

// TestFirst prints the rows of the first machine of all, alone.
func TestFirst(t *testing.T) {
	report(t, measure(min(runs(t), 10), firstRows(t)))
}

// firstRows are the first run that a host ever sees, its image built, beside the
// same where nothing is made for later ones.
func firstRows(t *testing.T) []*row {
	b := newBench(t, small...)
	first := func(conf ...string) func() time.Duration {
		conf = append(conf, `image = "busybox"`, `memory = "256M"`)
		return func() time.Duration { return b.firstRun(conf...) }
	}
	floor := &row{name: "`vm run -- true`, the first of a new root, with `templates = false`", once: first("templates = false")}
	return []*row{floor, {name: "the same with templates and a pool", floor: floor, goal: atMost(1.05), once: first()}}
}

// firstRun is how long the first run takes in a root of its own. The daemon's start
// is in the time; that all of it is removed is not.
func (b *bench) firstRun(conf ...string) time.Duration {
	one := newRoot(b.t, conf...)
	one.host = b.host
	defer one.remove()
	return one.time("vm", "run", "--network", "none", "--", "true")
}
