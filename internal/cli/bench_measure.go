package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

// benchLabel is the label of every machine of a bench, by which those that are
// left are found.
const benchLabel = "banger-bench"

func newBenchTag() string { return strings.ToLower(rand.Text()[:8]) }

// A bench measures on one daemon. Its methods are called one at a time.
type bench struct {
	*app
	c    *client.Client
	p    *progress
	spec api.Spec // of its machines
	tag  string   // the value of their benchLabel
	n    int      // how often each row is measured
	must bool     // the rows were asked for: that one cannot be measured is an error

	image string // on which its machines stand; empty: not known yet
	first bool   // a turn that is not counted goes on
	lent  *lease // the machine of exec and resume; nil: none yet
}

// A lap is one measurement.
type lap struct {
	answer time.Duration // to the command's exit
	gone   time.Duration // to the end of the call; 0: nothing is deleted
}

// A benchKind is a kind of row.
type benchKind struct {
	name string
	// ready gets what the row needs and returns what measures it once. That it
	// cannot be measured here is an error of kind [errkind.Host].
	ready func(*bench, context.Context) (func(context.Context) (lap, error), error)
}

// benchKinds are all rows, in the order in which they take turns.
var benchKinds = []benchKind{
	{"cold", (*bench).cold},
	{"restored", (*bench).restored},
	{"pooled", (*bench).pooled},
	{"exec", (*bench).exec},
	{"resume", (*bench).resume},
	{"docker", (*bench).docker},
}

func benchNames() []string {
	var names []string
	for _, k := range benchKinds {
		names = append(names, k.name)
	}
	return names
}

// benchRow is a row that can be measured here.
type benchRow struct {
	name string
	once func(context.Context) (lap, error)
	laps []lap
}

// measure gets every row ready, measures them in turns and returns what it
// found. Machines may be left.
func (b *bench) measure(ctx context.Context, kinds []benchKind) (*benchReport, error) {
	r := &benchReport{Rows: []benchFigures{}, Missing: []missingRow{}}
	var err error
	if r.Host, err = b.host(ctx); err != nil {
		return nil, err
	}
	var rows []*benchRow
	for _, k := range kinds {
		once, err := k.ready(b, ctx)
		if errkind.Of(err) == errkind.Host && !b.must && ctx.Err() == nil {
			m := missingRow{k.name, err.Error(), []string{}}
			for _, h := range errkind.Hints(err) {
				m.Hints = append(m.Hints, b.hint(h))
			}
			r.Missing = append(r.Missing, m)
			continue
		}
		if err != nil {
			return nil, cannot("measure "+k.name, err)
		}
		rows = append(rows, &benchRow{name: k.name, once: once})
	}
	for turn := range 1 + b.n {
		b.first = turn == 0
		b.p.update("", &api.Progress{Stage: "measure", Done: int64(turn), Total: int64(1 + b.n)})
		for _, row := range rows {
			l, err := row.once(ctx)
			if err != nil {
				return nil, cannot("measure "+row.name, err)
			}
			if turn > 0 { // what the first one finds is not there yet
				row.laps = append(row.laps, l)
			}
		}
	}
	r.Host.Image = orElse(r.Host.Image, b.image)
	for _, row := range rows {
		r.Rows = append(r.Rows, figuresOf(row.name, row.laps))
	}
	return r, nil
}

// cleanUp waits until no machine of the bench is left, also after a signal;
// another one ends it.
func (b *bench) cleanUp() {
	ctx, cancel := b.lastWords()
	defer cancel()
	b.p.brief("delete the machines")
	defer b.p.idle()
	if b.lent != nil {
		b.lent.end()
	}
	list, err := b.c.VM.List(ctx, connect.NewRequest(&api.ListRequest{Labels: []string{benchLabel + "=" + b.tag}}))
	if err == nil {
		for _, v := range list.Msg.Vms {
			_, derr := b.c.VM.Delete(ctx, connect.NewRequest(&api.DeleteRequest{Vm: v.Id}))
			if errkind.Of(derr) != errkind.NotFound {
				err = errors.Join(err, derr)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		b.warn("cannot delete the machines: %v", err)
	}
}
