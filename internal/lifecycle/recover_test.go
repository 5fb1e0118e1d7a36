package lifecycle_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/vm"
)

// The table "record × process": the process of each state is there or dead
// when the daemon comes back.
func TestRecovery(t *testing.T) {
	tests := []struct {
		state       vm.State
		alive, dead vm.State // after recovery; empty: deleted
	}{
		{vm.Running, vm.Running, vm.Stopped},
		{vm.Starting, vm.Running, vm.Stopped},
		{vm.Stopping, vm.Stopped, vm.Stopped},
		{vm.Deleting, "", ""},
		{vm.Stopped, vm.Stopped, vm.Stopped},
		{vm.Created, vm.Created, vm.Created},
	}
	for _, tt := range tests {
		for _, alive := range []bool{true, false} {
			for _, file := range []string{"kept", "removed", "garbled"} {
				t.Run(fmt.Sprintf("%s alive=%t handles %s", tt.state, alive, file), func(t *testing.T) {
					l := newLife(t)
					v := l.create("web", false)
					mustStart(t, l, v)
					if _, err := l.store.Change(context.Background(), v.ID, vm.Change{To: tt.state, Found: true}); err != nil {
						t.Fatal(err)
					}
					l.close()
					if !alive {
						l.w.VMM.Crash(string(v.ID))
					}
					garble(t, l.paths.VM(string(v.ID)).Handles(), file)
					l.open()
					if err := l.Recover(context.Background(), time.Minute); err != nil {
						t.Fatal(err)
					}
					want := tt.dead
					if alive {
						want = tt.alive
					}
					if got := l.agrees("after recovery", v); got.State != want {
						// What ran without being called for leaves nothing to tell apart.
						t.Errorf("recorded %q, want %q", got.State, want)
					}
				})
			}
		}
	}
}

func garble(t *testing.T, path, how string) {
	t.Helper()
	var err error
	switch how {
	case "removed":
		err = os.Remove(path)
	case "garbled":
		err = os.WriteFile(path, []byte("{\"pid\": 1"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A machine that ends by itself is stopped, and the record says why.
func TestEndsByItself(t *testing.T) {
	for reason, end := range map[string]func(*daemontest.World, string) bool{
		"powered off":       func(w *daemontest.World, id string) bool { return w.VMM.PowerOff(id) },
		"rebooted":          func(w *daemontest.World, id string) bool { return w.VMM.Reboot(id) },
		"panicked":          func(w *daemontest.World, id string) bool { return w.VMM.Panic(id) },
		"killed or crashed": func(w *daemontest.World, id string) bool { return w.VMM.Crash(id) },
	} {
		for _, adopted := range []bool{false, true} {
			l := newLife(t)
			v := l.create("web", false)
			mustStart(t, l, v)
			if adopted {
				l.restart()
			}
			if !end(l.w, string(v.ID)) {
				t.Fatal("it did not run")
			}
			deadline := time.Now().Add(5 * time.Second)
			for l.record(v.ID).State != vm.Stopped && time.Now().Before(deadline) {
				runtime.Gosched()
			}
			if got := l.agrees(reason, v); !strings.Contains(got.StateReason, reason) {
				t.Errorf("adopted %t: recorded %s, %q, want %q", adopted, got.State, got.StateReason, reason)
			}
		}
	}
}

// A VMM that overwrote its command line, as one that was broken out of may, is
// found by its handles and ended like any other.
func TestHiddenVMMIsFound(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.w.VMM.Hide(string(v.ID))
	l.restart()
	if got := l.agrees("after recovery", v); got.State != vm.Running {
		t.Errorf("recorded %s", got.State)
	}
	if _, err := l.Delete(context.Background(), v.ID); err != nil {
		t.Error(err)
	}
	l.agrees("after delete", v)
	if got := l.w.VMM.Processes(); len(got) != 0 {
		t.Errorf("processes left: %v", got)
	}
}

// That handles cannot be written costs no machine that runs.
func TestRecoveryWithoutHandles(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.close()
	path := l.paths.VM(string(v.ID)).Handles()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+"/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	l.open()
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := l.record(v.ID); got.State != vm.Running || !slices.Contains(l.w.VMM.Processes(), string(v.ID)) {
		t.Errorf("recorded %s, processes %v", got.State, l.w.VMM.Processes())
	}
	if _, err := l.Agent(context.Background(), v.ID); err != nil {
		t.Errorf("it cannot be used: %v", err)
	}
}

// One machine of a driver that this build lacks does not keep the daemon from
// starting, nor is it touched.
func TestRecoveryOfAnUnknownDriver(t *testing.T) {
	l := newLife(t)
	v, err := l.store.Create(context.Background(), vm.VM{
		Name: "foreign", State: vm.Created, Token: strings.Repeat("0", 32),
		Spec: vm.Spec{Image: "tiny", Kernel: "fake", Driver: "of-tomorrow", VCPUs: 1, MemoryBytes: 1 << 30, DiskBytes: 1 << 30, Network: "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.Change(context.Background(), v.ID, vm.Change{To: vm.Running, Found: true}); err != nil {
		t.Fatal(err)
	}
	mine := l.create("web", false)
	mustStart(t, l, mine)
	l.restart()
	if got := l.record(v.ID); got.State != vm.Running {
		t.Errorf("recorded %s", got.State)
	}
	if got := l.agrees("after recovery", mine); got.State != vm.Running {
		t.Errorf("the other machine is %s", got.State)
	}
}

// On a full disk nothing can be recorded, and deleting is what makes room.
func TestDeleteOnAFullDisk(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.failStore = func(method string) error {
		if method == "Change" {
			return errkind.New(errkind.Host, "no room is left")
		}
		return nil
	}
	l.restart()
	if _, err := l.Delete(context.Background(), v.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	l.agrees("after delete", v)
}

// A stop that had to kill says so: what the guest had not synced may be lost.
func TestStopThatKills(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.restart() // no connection to the agent yet
	l.w.Silent.Store(true)
	got, err := l.Stop(context.Background(), v.ID, 50*time.Millisecond)
	if err != nil || got.State != vm.Stopped || !strings.Contains(got.StateReason, "killed") {
		t.Errorf("Stop = %s, %q, %v", got.State, got.StateReason, err)
	}
	l.agrees("after stop", v)
}

// Kill and delete are at once: they do not wait for a start that is under way.
func TestKillDoesNotWait(t *testing.T) {
	for name, op := range map[string]func(*life, vm.ID) error{
		"kill":   func(l *life, id vm.ID) error { _, err := l.Kill(context.Background(), id); return err },
		"delete": func(l *life, id vm.ID) error { _, err := l.Delete(context.Background(), id); return err },
	} {
		l := newLife(t)
		v := l.create("web", false)
		booting, ended := make(chan struct{}), make(chan error, 1)
		l.w.SetFail(once("before guest", func() error { close(booting); return nil }))
		l.w.Silent.Store(true) // its agent never answers
		go func() {
			_, err := l.Start(context.Background(), v.ID, nobody)
			ended <- err
		}()
		<-booting
		if err := op(l, v.ID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-ended; err == nil {
			t.Errorf("%s: the start succeeded", name)
		}
		l.w.SetFail(nil)
		if got := l.agrees("after "+name, v); name == "kill" && got.State != vm.Stopped {
			t.Errorf("recorded %s", got.State)
		}
	}
}

// A boot that fails is told by what the guest said in it, not in the one before.
func TestBootErrorQuotesThisBoot(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	if _, err := l.Stop(context.Background(), v.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(l.paths.VM(string(v.ID)).ConsoleLog(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("the last boot's words\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.w.SetFail(func(op string) error {
		if op == "before guest" {
			l.w.VMM.Crash(string(v.ID))
		}
		return nil
	})
	_, err = l.Start(context.Background(), v.ID, nobody)
	if err == nil || !strings.Contains(err.Error(), "its console ends:\nbooted") {
		t.Errorf("Start = %v", err)
	}
}
