package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// Restarting brings up what is up and what is not.
func TestRestart(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for _, before := range []vm.State{vm.Created, vm.Running, vm.Stopped} {
		if before == vm.Stopped {
			if _, err := l.Stop(context.Background(), v.ID, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.record(v.ID); got.State != before {
			t.Fatalf("it is %s before, want %s", got.State, before)
		}
		pid := l.w.VMM.PID(string(v.ID))
		var stages []string
		got, err := l.Restart(context.Background(), v.ID, time.Second, func(stage, _ string, _, _ int64) { stages = append(stages, stage) })
		if err != nil || got.State != vm.Running {
			t.Errorf("Restart of one that is %s = %s, %v", before, got.State, err)
		}
		l.agrees("after a restart of one that was "+string(before), v)
		if now := l.w.VMM.PID(string(v.ID)); now == 0 || now == pid {
			t.Errorf("its process is %d, was %d", now, pid)
		}
		if len(stages) < 2 {
			t.Errorf("told of %q alone", stages)
		}
	}
	if _, err := l.Restart(context.Background(), "nosuch", time.Second, nobody); errkind.Of(err) != errkind.NotFound {
		t.Errorf("Restart of none: %v", err)
	}
}

func restartPoints(t *testing.T) []string {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	return l.points(func() {
		if _, err := l.Restart(context.Background(), v.ID, time.Second, nobody); err != nil {
			t.Fatal(err)
		}
	})
}

// A restart that fails or dies leaves a machine that can be restarted.
func TestRestartFailsOrDiesAtEveryPoint(t *testing.T) {
	for _, p := range restartPoints(t) {
		t.Run(p, func(t *testing.T) {
			l := newLife(t)
			v := l.create("web", false)
			mustStart(t, l, v)
			l.w.SetFail(once(p, func() error { return errBoom }))
			_, err := l.Restart(context.Background(), v.ID, time.Second, nobody)
			l.w.SetFail(nil)
			if err != nil && !errors.Is(err, errBoom) {
				t.Fatalf("Restart = %v, want boom", err)
			}
			if got := l.record(v.ID); got.State != vm.Faulty && !noObstacle(p) {
				l.agrees("after the failure", v)
			}
			if _, err := l.Restart(context.Background(), v.ID, time.Second, nobody); err != nil {
				t.Errorf("restart after the failure: %v", err)
			}
			l.crash(p, func() { _, _ = l.Restart(context.Background(), v.ID, time.Second, nobody) })
			l.restart()
			l.agrees("after recovery", v)
			if got, err := l.Restart(context.Background(), v.ID, time.Second, nobody); err != nil || got.State != vm.Running {
				t.Errorf("restart after recovery = %s, %v", got.State, err)
			}
		})
	}
}

// Only what does not run is deleted as such.
func TestDeleteStopped(t *testing.T) {
	l := newLife(t)
	up := l.create("up", false)
	mustStart(t, l, up)
	if v, err := l.DeleteStopped(context.Background(), up.ID); errkind.Of(err) != errkind.Conflict || v.Name != "up" {
		t.Errorf("DeleteStopped of one that runs = %q, %v", v.Name, err)
	}
	if got := l.agrees("after that", up); got.State != vm.Running {
		t.Errorf("it is %s by now", got.State)
	}
	if _, err := l.Stop(context.Background(), up.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	for _, v := range []vm.VM{up, l.create("new", false)} {
		if _, err := l.DeleteStopped(context.Background(), v.ID); err != nil {
			t.Errorf("DeleteStopped(%s): %v", v.Name, err)
		}
		l.agrees("after deleting", v)
		if _, err := l.DeleteStopped(context.Background(), v.ID); errkind.Of(err) != errkind.NotFound {
			t.Errorf("DeleteStopped(%s) again: %v", v.Name, err)
		}
	}
	nothingLeft(t, l)
}

// A start and the deletion of what is stopped, at once: one of them wins, and
// the other says why not.
func TestDeleteStoppedMeetsStart(t *testing.T) {
	l := newLife(t)
	for range 50 {
		v := l.create("web", false)
		var started, deleted error
		var wg sync.WaitGroup
		wg.Go(func() { _, started = l.Start(context.Background(), v.ID, nobody) })
		wg.Go(func() { _, deleted = l.DeleteStopped(context.Background(), v.ID) })
		wg.Wait()
		got := l.agrees("after both", v)
		switch {
		case deleted == nil && started != nil && got.ID == "":
			// It was gone, or on its way, when start looked.
			if k := errkind.Of(started); k != errkind.NotFound && k != errkind.Conflict {
				t.Fatalf("start: %v", started)
			}
		case started == nil && errkind.Of(deleted) == errkind.Conflict && got.State == vm.Running:
		default:
			t.Fatalf("start: %v; delete: %v; the machine is %q", started, deleted, got.State)
		}
		if got.ID != "" {
			if _, err := l.Delete(context.Background(), v.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothingLeft(t, l)
}

func TestDeleteStoppedDiesAtEveryPoint(t *testing.T) {
	probe := newLife(t)
	pv := probe.create("web", false)
	for _, p := range probe.points(func() {
		if _, err := probe.DeleteStopped(context.Background(), pv.ID); err != nil {
			t.Fatal(err)
		}
	}) {
		t.Run(p, func(t *testing.T) {
			l := newLife(t)
			v := l.create("web", false)
			l.crash(p, func() { _, _ = l.DeleteStopped(context.Background(), v.ID) })
			l.restart()
			if got := l.agrees("after recovery", v); got.ID != "" {
				t.Errorf("it is %s", got.State)
			}
		})
	}
}

// Two restarts at once both end with a machine that was started since.
func TestTwoRestarts(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	for range 20 {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if got, err := l.Restart(context.Background(), v.ID, time.Second, nobody); err != nil || got.State != vm.Running {
					t.Errorf("Restart = %s, %v", got.State, err)
				}
			})
		}
		wg.Wait()
		l.agrees("after both", v)
	}
}
