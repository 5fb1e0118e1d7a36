package lifecycle_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/vm"
)

// A walk is a random life of machines, and what is known of them.
type walk struct {
	*life
	vms map[string]*walker
}

// A walker is one machine of a walk.
type walker struct {
	v       vm.VM
	up      bool
	paused  bool
	network string
}

var walkers = []string{"a", "b", "c", "d"}

// Whatever happens to machines, in whatever order, records and host agree
// after each step. The flag -rapid.checks says how many walks there are;
// rapid's own default is too many for a test that is run often.
func TestWalk(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		def := f.DefValue
		defer func() { _ = f.Value.Set(def) }()
		if err := f.Value.Set("15"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLife(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := &walk{life: l, vms: make(map[string]*walker)}
		l.t = rt
		defer func() { l.t = t }()
		defer w.empty()
		rt.Repeat(map[string]func(*rapid.T){
			"":             w.check,
			"create":       w.create,
			"start":        w.start,
			"stop":         w.stop,
			"restart":      w.restartOne,
			"delete":       w.delete,
			"daemon crash": func(*rapid.T) { l.restart() },
			"VMM crash":    w.crashVMM,
			"disk full":    w.fill,
			"pause":        w.pauseOne,
			"resume":       w.resumeOne,
		})
	})
}

// pick draws a machine that is there.
func (w *walk) pick(t *rapid.T) *walker {
	var there []string
	for name := range w.vms {
		there = append(there, name)
	}
	if len(there) == 0 {
		t.Skip("no machine")
	}
	slices.Sort(there)
	return w.vms[rapid.SampledFrom(there).Draw(t, "machine")]
}

func (w *walk) create(t *rapid.T) {
	name := rapid.SampledFrom(walkers).Draw(t, "name")
	mode := rapid.SampledFrom([]string{network.NAT, network.NAT, network.None}).Draw(t, "network")
	v, err := w.Create(context.Background(), lifecycle.Request{Name: name, Spec: vm.Spec{Network: mode}}, nobody)
	switch {
	case w.vms[name] != nil:
		if errkind.Of(err) != errkind.Conflict {
			t.Fatalf("create %s again: %v", name, err)
		}
	case err != nil:
		t.Fatalf("create %s: %v", name, err)
	default:
		w.vms[name] = &walker{v: v, network: mode}
	}
}

func (w *walk) start(t *rapid.T) {
	m := w.pick(t)
	_, err := w.Start(context.Background(), m.v.ID, nobody)
	switch {
	case m.up && errkind.Of(err) != errkind.Conflict:
		t.Fatalf("start %s again: %v", m.v.Name, err)
	case !m.up && err != nil:
		t.Fatalf("start %s: %v", m.v.Name, err)
	}
	m.up = true
}

func (w *walk) stop(t *rapid.T) {
	m := w.pick(t)
	if _, err := w.Stop(context.Background(), m.v.ID, 5*time.Second); err != nil {
		t.Fatalf("stop %s: %v", m.v.Name, err)
	}
	m.up, m.paused = false, false
}

func (w *walk) restartOne(t *rapid.T) {
	m := w.pick(t)
	if _, err := w.Restart(context.Background(), m.v.ID, 5*time.Second, nobody); err != nil {
		t.Fatalf("restart %s: %v", m.v.Name, err)
	}
	m.up, m.paused = true, false
}

// pauseOne and resumeOne do nothing to a machine that is off but be refused.
func (w *walk) pauseOne(t *rapid.T)  { w.hold(t, w.Pause, true) }
func (w *walk) resumeOne(t *rapid.T) { w.hold(t, w.Resume, false) }

func (w *walk) hold(t *rapid.T, do func(context.Context, vm.ID) (vm.VM, error), pause bool) {
	m := w.pick(t)
	_, err := do(context.Background(), m.v.ID)
	switch {
	case m.up && err != nil:
		t.Fatalf("pause (%t) %s: %v", pause, m.v.Name, err)
	case !m.up && errkind.Of(err) != errkind.Conflict:
		t.Fatalf("pause (%t) %s, which is off: %v", pause, m.v.Name, err)
	}
	m.paused = m.up && pause
}

func (w *walk) delete(t *rapid.T) {
	m := w.pick(t)
	if _, err := w.Delete(context.Background(), m.v.ID); err != nil {
		t.Fatalf("delete %s: %v", m.v.Name, err)
	}
	delete(w.vms, m.v.Name)
}

// crashVMM waits until the end is told of: what a user does before that meets
// a machine that is on its way.
func (w *walk) crashVMM(t *rapid.T) {
	m := w.pick(t)
	if w.w.VMM.Crash(string(m.v.ID)) != m.up {
		t.Fatalf("%s: a VMM ran: %t", m.v.Name, !m.up)
	}
	if m.up {
		w.becomes(m.v.ID, vm.Stopped)
	}
	m.up, m.paused = false, false
}

// fill fills the disk and makes room again.
func (w *walk) fill(*rapid.T) {
	spare := w.w.Host.Spare
	defer w.w.Host.SetSpare(spare)
	for _, step := range []struct {
		free int64
		want vm.State
	}{{0, vm.Paused}, {spare, vm.Running}} {
		w.w.Host.SetSpare(step.free)
		for _, m := range w.vms {
			if m.up && !m.paused {
				w.room(step.free, m.v.ID, step.want)
			}
		}
	}
}

func (w *walk) check(t *rapid.T) {
	records, err := w.store.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != len(w.vms) {
		t.Fatalf("%d records of %d machines", len(records), len(w.vms))
	}
	taps, addrs := 0, make(map[string]bool)
	for _, m := range w.vms {
		got := w.record(m.v.ID)
		if m.up != got.State.Up() {
			t.Fatalf("%s is %s (%s), up: %t", got.Name, got.State, got.StateReason, m.up)
		}
		if m.paused != (got.State == vm.Paused) || m.paused != got.Held {
			t.Fatalf("%s is %s (%s), held: %t, paused: %t", got.Name, got.State, got.StateReason, got.Held, m.paused)
		}
		want := 0
		if m.up {
			want = 6
		}
		if m.up && m.network == network.NAT {
			want, taps = 7, taps+1
		}
		if left := w.running(m.v); len(left) != want {
			t.Fatalf("%s is %s, and there is %v", got.Name, got.State, left)
		}
		if (got.GuestIP == "") != (m.network == network.None) || got.GuestIP != "" && addrs[got.GuestIP] {
			t.Fatalf("%s has address %q", got.Name, got.GuestIP)
		}
		addrs[got.GuestIP] = true
	}
	w.checkNetwork(t, taps)
}

// checkNetwork: a bridge and a table as long as there is a tap, and nothing
// else.
func (w *walk) checkNetwork(t *rapid.T, taps int) {
	want := 0
	if taps > 0 {
		want = 1
	}
	if links, tables := w.w.Net.Links(), w.w.Net.Tables(); len(links) != taps+want || len(tables) != want {
		t.Fatalf("for %d taps there are %v and %v", taps, links, tables)
	}
}

// empty leaves nothing for the next walk.
func (w *walk) empty() {
	for _, m := range w.vms {
		if _, err := w.Delete(context.Background(), m.v.ID); err != nil {
			w.t.Fatal(fmt.Errorf("delete %s at the end: %w", m.v.Name, err))
		}
	}
}
