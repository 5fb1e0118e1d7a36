package lifecycle_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// guest waits until a machine's guest stands or runs.
func (l *life) guest(id vm.ID, want vmm.Status) {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	for l.w.VMM.Status(string(id)) != want {
		l.CheckRoom()
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			l.t.Fatalf("the guest is %q, want %q", l.w.VMM.Status(string(id)), want)
		}
	}
}

func (l *life) pause(v vm.VM) {
	l.t.Helper()
	got, err := l.Pause(context.Background(), v.ID)
	if err != nil || got.State != vm.Paused || !got.Held || got.StateReason != "paused on request" {
		l.t.Fatalf("Pause = %s, held %t, %q, %v", got.State, got.Held, got.StateReason, err)
	}
}

func (l *life) resume(v vm.VM) {
	l.t.Helper()
	got, err := l.Resume(context.Background(), v.ID)
	if err != nil || got.State != vm.Running || got.Held || got.StateReason != "" {
		l.t.Fatalf("Resume = %s, held %t, %q, %v", got.State, got.Held, got.StateReason, err)
	}
}

// A machine that was paused stands, whatever becomes of the daemon and however
// much room there is, until it is resumed; then its clock is set.
func TestPause(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	lines, stop := l.Notices(v.ID)
	defer stop()
	l.pause(v)
	if st := l.w.VMM.Status(string(v.ID)); st != vmm.Paused {
		t.Errorf("the guest is %s", st)
	}
	if line := <-lines; !strings.Contains(line, "paused on request; `banger vm resume web` lets it go on") {
		t.Errorf("told %q", line)
	}
	l.pause(v) // again
	l.CheckRoom()
	l.restart()
	l.CheckRoom()
	l.pause(v) // once more, which waits for its lock
	l.guest(v.ID, vmm.Paused)
	if r := l.record(v.ID); r.State != vm.Paused || !r.Held {
		t.Errorf("it is %s, held %t", r.State, r.Held)
	}
	set := l.w.ClocksSet.Load()
	l.resume(v)
	if st := l.w.VMM.Status(string(v.ID)); st != vmm.Running {
		t.Errorf("the guest is %s", st)
	}
	if n := l.w.ClocksSet.Load() - set; n != 1 {
		t.Errorf("its clock was set %d times", n)
	}
	l.resume(v) // again
	l.agrees("after a pause", v)
}

// Whoever uses a machine that was paused resumes it.
func TestPausedMachineIsUsed(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.pause(v)
	if _, err := l.Agent(context.Background(), v.ID); err != nil {
		t.Fatal(err)
	}
	if r := l.record(v.ID); r.State != vm.Running || l.w.VMM.Status(string(v.ID)) != vmm.Running {
		t.Errorf("it is %s, its guest %s", r.State, l.w.VMM.Status(string(v.ID)))
	}
}

// Room and its owner's wish are two reasons to stand: a machine goes on when
// neither is left.
func TestPauseOnFullDisk(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.room(10<<20, v.ID, vm.Paused)
	l.pause(v)
	l.w.Host.SetSpare(1 << 30)
	l.CheckRoom()
	l.restart()
	l.guest(v.ID, vmm.Paused)
	l.resume(v)

	l.pause(v)
	l.w.Host.SetSpare(10 << 20)
	got, err := l.Resume(context.Background(), v.ID)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "disk is full") || got.State != vm.Paused || got.Held {
		t.Fatalf("Resume on a full disk = %s, held %t, %v", got.State, got.Held, err)
	}
	if _, err := l.Agent(context.Background(), v.ID); errkind.Of(err) != errkind.Conflict {
		t.Errorf("an exec is refused with %v", err)
	}
	l.room(1<<30, v.ID, vm.Running)
	l.guest(v.ID, vmm.Running)
}

// A machine that was paused goes on to power off: it has things to write.
func TestStopPaused(t *testing.T) {
	for _, daemon := range []string{"the same daemon", "the next daemon"} {
		t.Run(daemon, func(t *testing.T) {
			l := newLife(t)
			v := l.create("web", false)
			mustStart(t, l, v)
			l.pause(v)
			if daemon == "the next daemon" {
				l.restart()
			}
			stood := false
			l.w.VMM.OnPowerOff(string(v.ID), func() bool {
				stood = l.w.VMM.Status(string(v.ID)) != vmm.Running
				return true
			})
			got, err := l.Stop(context.Background(), v.ID, 10*time.Second)
			if err != nil || got.StateReason != "stopped on request" || stood || got.Held {
				t.Errorf("Stop = %q, %v; it stood: %t", got.StateReason, err, stood)
			}
			l.agrees("after a stop", v)
			mustStart(t, l, v)
		})
	}
}

// What does not run cannot be paused or resumed, and says so.
func TestPauseNotRunning(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for name, f := range map[string]func(context.Context, vm.ID) (vm.VM, error){"Pause": l.Pause, "Resume": l.Resume} {
		if _, err := f(context.Background(), v.ID); errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), `"web" is not running (created)`) {
			t.Errorf("%s = %v", name, err)
		}
	}
}

// pauseOps are what may fail in the middle, or meet the daemon's end there.
var pauseOps = map[string]struct {
	paused bool // before
	do     func(l *life, v vm.VM) error
}{
	"idle":   {false, func(l *life, v vm.VM) error { l.idle(v, time.Minute); l.LookForIdle(); return nil }},
	"pause":  {false, func(l *life, v vm.VM) error { _, err := l.Pause(context.Background(), v.ID); return err }},
	"resume": {true, func(l *life, v vm.VM) error { _, err := l.Resume(context.Background(), v.ID); return err }},
}

// ready makes a machine that an operation can be done to.
func ready(t *testing.T, l *life, paused bool) vm.VM {
	v := l.create("web", false)
	mustStart(t, l, v)
	if paused {
		l.pause(v)
	}
	return v
}

// Wherever the daemon dies, and whatever fails, record and guest agree in the
// end, and the machine can be paused and resumed.
func TestPauseFailsAtEveryPoint(t *testing.T) {
	for name, op := range pauseOps {
		l := newLife(t)
		v := ready(t, l, op.paused)
		points := l.points(func() {
			if err := op.do(l, v); err != nil {
				t.Fatal(err)
			}
		})
		if len(points) < 2 {
			t.Fatalf("%s passes only %q", name, points)
		}
		for _, p := range points {
			for _, how := range []string{"dies", "fails"} {
				t.Run(name+"/"+p+"/"+how, func(t *testing.T) { pauseInterrupted(t, op.paused, op.do, p, how == "dies") })
			}
		}
	}
}

func pauseInterrupted(t *testing.T, paused bool, do func(*life, vm.VM) error, point string, dies bool) {
	l := newLife(t)
	v := ready(t, l, paused)
	if dies {
		l.crash(point, func() { _ = do(l, v) }) // it never returns
		l.restart()
	} else {
		l.w.SetFail(once(point, func() error { return errBoom }))
		err := do(l, v)
		unfound := strings.HasSuffix(point, " find") && errkind.Of(err) == errkind.Conflict
		if err != nil && !errors.Is(err, errBoom) && !unfound {
			t.Errorf("failed with %v, want boom", err)
		}
		l.w.SetFail(nil)
	}
	want := map[vm.State]vmm.Status{vm.Paused: vmm.Paused, vm.Running: vmm.Running}
	r := l.record(v.ID)
	if want[r.State] == "" || r.Held != (r.State == vm.Paused) {
		t.Fatalf("it is %s, held %t", r.State, r.Held)
	}
	l.guest(v.ID, want[r.State])
	if again := l.record(v.ID); again.State != r.State || again.Held != r.Held {
		t.Errorf("it was %s and is %s, held %t", r.State, again.State, again.Held)
	}
	l.resume(v)
	l.pause(v)
	l.resume(v)
	l.agrees("in the end", v)
}
