package lifecycle_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
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
	return l.becomesWhile(func() { l.CheckRoom() }, id, want)
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
	l.CheckRoom()
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

// A disk that is full while a guest boots makes the start wait, not fail.
func TestDiskFullDuringStart(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	l.w.Silent.Store(true) // its agent does not answer yet
	started := make(chan error, 1)
	go func() {
		_, err := l.Start(context.Background(), v.ID, nobody)
		started <- err
	}()
	status := func(want vmm.Status) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for l.w.VMM.Status(string(v.ID)) != want {
			l.CheckRoom()
			select {
			case <-time.After(time.Millisecond):
			case <-deadline:
				t.Fatalf("the guest is %q, want %q", l.w.VMM.Status(string(v.ID)), want)
			}
		}
	}
	status(vmm.Running)
	l.w.Host.SetSpare(0)
	status(vmm.Paused)
	l.w.Host.SetSpare(1 << 30)
	status(vmm.Running)
	l.w.Silent.Store(false)
	if err := <-started; err != nil {
		t.Errorf("Start = %v", err)
	}
	l.becomes(v.ID, vm.Running)
}

// A guest that meets the end of the disk while it powers off is not killed for
// that; with room again it goes on, and ends.
func TestDiskFullDuringStop(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.w.VMM.OnPowerOff(string(v.ID), func() bool { // it has to write first
		l.w.Host.SetSpare(0)
		l.w.VMM.SetFull(string(v.ID), true)
		return false
	})
	got, err := l.Stop(context.Background(), v.ID, 200*time.Millisecond)
	if errkind.Of(err) != errkind.Conflict || got.State != vm.Paused {
		t.Fatalf("Stop = %s, %v", got.State, err)
	}
	l.w.VMM.OnPowerOff(string(v.ID), nil)
	l.w.VMM.SetFull(string(v.ID), false)
	l.room(1<<30, v.ID, vm.Running)
	l.w.VMM.PowerOff(string(v.ID)) // as it was asked to
	if v := l.becomes(v.ID, vm.Stopped); v.StateReason != "the guest powered off" {
		t.Errorf("it is stopped, because %q", v.StateReason)
	}
}

// What an earlier daemon kept for records is given by the next one, which may
// have begun on a disk that is full.
func TestReserveOfAnEarlierDaemon(t *testing.T) {
	l := newLife(t)
	l.failStore = func(method string) error {
		if method == "Change" && l.w.Host.Kept > 0 {
			return errkind.New(errkind.Host, "no room is left")
		}
		return nil
	}
	l.restart()
	v := l.create("web", false)
	mustStart(t, l, v)
	l.w.Host.Kept = 8 << 20
	l.restart()
	if got, err := l.Kill(context.Background(), v.ID); err != nil || got.State != vm.Stopped {
		t.Errorf("Kill = %s, %v", got.State, err)
	}
}

// A disk on which a machine would be paused at once starts none.
func TestNoRoomToStart(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	l.w.Host.SetSpare(100 << 20)
	_, err := l.Start(context.Background(), v.ID, nobody)
	if errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), "100M left") || l.record(v.ID).State != vm.Created {
		t.Errorf("Start = %v; it is %s", err, l.record(v.ID).State)
	}
}

// Killing needs no room: the end is recorded when there is some.
func TestKillUnrecorded(t *testing.T) {
	l := newLife(t)
	var full atomic.Bool
	l.failStore = func(method string) error {
		if method == "Change" && full.Load() {
			return errkind.New(errkind.Host, "no room is left")
		}
		return nil
	}
	l.restart()
	v := l.create("web", false)
	mustStart(t, l, v)
	full.Store(true)
	if got, err := l.Kill(context.Background(), v.ID); err != nil || got.State != vm.Stopped {
		t.Errorf("Kill = %s, %v", got.State, err)
	}
	if l.w.VMM.Status(string(v.ID)) != "" {
		t.Error("it runs still")
	}
	full.Store(false)
	l.becomes(v.ID, vm.Stopped)
	l.agrees("with room again", v)
}

// A start that is refused writes nothing, and one that meets a stop waits for
// it.
func TestStartMeetsStop(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for range 20 {
		mustStart(t, l, v)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Kill(context.Background(), v.ID); err != nil {
				t.Errorf("Kill = %v", err)
			}
		})
		for range 3 {
			wg.Go(func() {
				if _, err := l.Start(context.Background(), v.ID, nobody); err != nil && errkind.Of(err) != errkind.Conflict {
					t.Errorf("Start = %v", err)
				}
			})
		}
		wg.Wait()
		l.agrees("after starts and a kill", v)
		if _, err := l.Kill(context.Background(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// While room is scarce and somebody may take it, it is looked at often.
func TestRoomIsLookedAtOften(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	looks := func(spare int64, often bool) {
		t.Helper()
		l.w.Host.SetSpare(spare)
		if again := l.CheckRoom(); again < 100*time.Millisecond != often {
			t.Errorf("with %d bytes free it looks again after %s", spare, again)
		}
	}
	looks(200<<20, false) // nothing runs
	mustStart(t, l, v)
	looks(200<<20, true)
	looks(10<<30, false)
	looks(1<<20, false) // it is too late to hurry
}
