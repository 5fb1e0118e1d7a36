package lifecycle_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// becomes waits until a machine's record is in a state.
func (l *life) becomes(id vm.ID, want vm.State) vm.VM {
	l.t.Helper()
	return l.becomesWhile(func() {}, id, want)
}

// becomesWhile is becomes, calling f from time to time.
func (l *life) becomesWhile(f func(), id vm.ID, want vm.State) vm.VM {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		f()
		v := l.record(id)
		if v.State == want {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			l.t.Fatalf("machine is %s (%s), want %s", v.State, v.StateReason, want)
		}
	}
}

// room makes n bytes free and lets the manager look, as the daemon does from
// time to time, until the record says what it should.
func (l *life) room(n int64, id vm.ID, want vm.State) vm.VM {
	l.t.Helper()
	l.w.Host.SetSpare(n)
	return l.becomesWhile(func() { l.CheckRoom(context.Background()) }, id, want)
}

// A disk that is about to be full pauses machines, says so, and lets them go
// on.
func TestDiskFillsUp(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	lines, stop := l.Notices(v.ID)
	defer stop()
	p := l.room(10<<20, v.ID, vm.Paused)
	if !strings.Contains(p.StateReason, "disk is full: 10M left under "+l.paths.State) {
		t.Errorf("the reason is %q", p.StateReason)
	}
	if line := <-lines; !strings.Contains(line, "web is paused") || !strings.Contains(line, "goes on when 128M are free") {
		t.Errorf("told %q", line)
	}
	_, err := l.Agent(context.Background(), v.ID)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "is paused: the host's disk is full") {
		t.Errorf("an exec is refused with %v", err)
	}
	_, err = l.Stop(context.Background(), v.ID, time.Second)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "has not written") || l.record(v.ID).State != vm.Paused {
		t.Errorf("a stop is refused with %v; it is %s", err, l.record(v.ID).State)
	}
	// Not yet enough for all to go on without standing again at once.
	l.room(100<<20, v.ID, vm.Paused)
	if r := l.room(1<<30, v.ID, vm.Running); r.StateReason != "" {
		t.Errorf("it runs, because %q", r.StateReason)
	}
	if line := <-lines; !strings.Contains(line, "web goes on") {
		t.Errorf("told %q", line)
	}
	l.agrees("after the disk was full", v)
}

// A guest that was quicker than we are stands by the VMM's doing.
func TestVMMMeetsFullDisk(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.w.Host.SetSpare(0)
	l.w.VMM.SetFull(string(v.ID), true)
	l.becomes(v.ID, vm.Paused)
	// The next daemon knows it too, and lets it go on.
	l.restart()
	l.becomes(v.ID, vm.Paused)
	l.w.VMM.SetFull(string(v.ID), false)
	l.room(1<<30, v.ID, vm.Running)
}

// What happened while no daemon looked is found out by the next one.
func TestStandsWhileNoDaemonLooks(t *testing.T) {
	l := newLife(t)
	a, b := l.create("a", false), l.create("b", false)
	mustStart(t, l, a)
	mustStart(t, l, b)
	l.w.VMM.SetStatus(string(b.ID), vmm.IOError)
	l.becomes(b.ID, vm.Paused)
	l.close()
	l.w.VMM.SetStatus(string(a.ID), vmm.IOError)
	l.w.VMM.SetStatus(string(b.ID), vmm.Running)
	l.open()
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	l.becomes(a.ID, vm.Paused)
	l.becomes(b.ID, vm.Running)
}

// With room again, a machine that still stands powers off in order; killing and
// deleting need none.
func TestPausedMachineEnds(t *testing.T) {
	l := newLife(t)
	a, b, c := l.create("a", false), l.create("b", false), l.create("c", false)
	for _, v := range []vm.VM{a, b, c} {
		mustStart(t, l, v)
	}
	l.room(1<<20, a.ID, vm.Paused)
	l.becomes(b.ID, vm.Paused)
	l.becomes(c.ID, vm.Paused)
	if v, err := l.Kill(context.Background(), a.ID); err != nil || v.State != vm.Stopped {
		t.Errorf("Kill = %s, %v", v.State, err)
	}
	if _, err := l.Delete(context.Background(), b.ID); err != nil {
		t.Errorf("Delete = %v", err)
	}
	l.w.Host.SetSpare(1 << 30)
	if v, err := l.Stop(context.Background(), c.ID, 10*time.Second); err != nil || v.StateReason != "stopped on request" {
		t.Errorf("Stop = %q, %v", v.StateReason, err)
	}
	for _, v := range []vm.VM{a, b, c} {
		l.agrees("at the end", v)
	}
}

// Room that is kept for records is given when one cannot be written.
func TestReserve(t *testing.T) {
	l := newLife(t)
	full := errkind.New(errkind.Host, "no room is left")
	l.failStore = func(method string) error {
		if method == "Change" && l.w.Host.Kept > 0 && l.w.Host.Spare == 0 {
			return full
		}
		return nil
	}
	l.restart()
	v := l.create("web", false)
	mustStart(t, l, v)
	l.CheckRoom(context.Background())
	if l.w.Host.Kept == 0 {
		t.Fatal("no room is kept")
	}
	l.room(0, v.ID, vm.Paused)
	if l.w.Host.Kept != 0 {
		t.Error("the room was not given")
	}
	l.room(1<<30, v.ID, vm.Running)
	if l.w.Host.Kept == 0 {
		t.Error("no room is kept again")
	}
}
