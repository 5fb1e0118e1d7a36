package lifecycle_test

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// The record says that a VMM was killed for want of memory, and whose, whether a
// daemon watched or not.
func TestKilledForWantOfMemory(t *testing.T) {
	for limit, want := range map[int64]string{
		448 << 20: "the VMM used more memory than its limit of 448M",
		0:         "the host ran out of memory, and its kernel killed the VMM",
	} {
		for _, watched := range []bool{true, false} {
			l := newLife(t)
			v := l.create("web", false)
			mustStart(t, l, v)
			if !watched {
				l.close()
			}
			l.w.Limits.Kill(string(v.ID), limit)
			l.w.VMM.Crash(string(v.ID))
			if !watched {
				l.open()
				if err := l.Recover(context.Background(), time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			deadline := time.Now().Add(5 * time.Second)
			for l.record(v.ID).State != vm.Stopped && time.Now().Before(deadline) {
				runtime.Gosched()
			}
			if got := l.agrees("after the kill", v); got.StateReason != want {
				t.Errorf("watched %t: recorded %s, %q, want %q", watched, got.State, got.StateReason, want)
			}
		}
	}
}

// So does the error of a start.
func TestKilledForWantOfMemoryWhileStarting(t *testing.T) {
	for _, point := range []string{"after launch", "before guest"} {
		l := newLife(t)
		v := l.create("web", false)
		l.w.SetFail(once(point, func() error {
			l.w.Limits.Kill(string(v.ID), 448<<20)
			if point == "after launch" {
				return errBoom
			}
			l.w.VMM.Crash(string(v.ID))
			return nil
		}))
		_, err := l.Start(context.Background(), v.ID, nobody)
		l.w.SetFail(nil)
		if err == nil || !strings.Contains(err.Error(), "more memory than its limit of 448M") {
			t.Errorf("Start, killed %s = %v", point, err)
		}
		l.agrees("after the failure", v)
	}
}

// Limits that no record owns go when a daemon starts, and those of a machine that
// is stopped.
func TestLimitsAreRemovedAtStart(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for _, id := range []string{"00000000", string(v.ID)} {
		if _, err := l.w.Limits.Make(id, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	if entries, err := os.ReadDir(l.w.Limits.Dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if got := l.agrees("after a restart", v); got.State != vm.Created {
		t.Errorf("it is %s", got.State)
	}
}
