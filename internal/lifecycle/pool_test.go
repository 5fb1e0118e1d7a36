package lifecycle_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// newPooled is a life in which a machine waits in the pool.
func newPooled(t *testing.T) (*life, vm.VM) {
	t.Helper()
	l := newLife(t)
	l.templates, l.pool = true, 1
	l.restart()
	l.makeTemplate()
	first := l.createSmall("first", small)
	mustStart(t, l, first)
	l.Used(l.record(first.ID))
	waits := l.waits()
	if _, err := l.Delete(context.Background(), first.ID); err != nil {
		t.Fatal(err)
	}
	return l, waits
}

// waits waits until a machine does in the pool.
func (l *life) waits() vm.VM {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		vms, err := l.List(context.Background())
		if err != nil {
			l.t.Fatal(err)
		}
		for _, v := range vms {
			if v.Purpose == vm.ForPool && v.Held {
				return v
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			l.t.Fatalf("no machine waits in the pool; there is %v", vms)
		}
	}
}

// claim claims until it can: that a machine waits is recorded before it is known.
func (l *life) claim(r lifecycle.Request) (vm.VM, bool) {
	l.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		v, ok, err := l.Claim(context.Background(), r)
		if err != nil {
			l.t.Fatal(err)
		}
		if ok || time.Now().After(deadline) {
			return v, ok
		}
		<-time.After(time.Millisecond)
	}
}

// What fills the pool takes a processor that nobody else wants; what waits in it
// is as quick as any other machine.
func TestPoolIsFilledIdle(t *testing.T) {
	l, waits := newPooled(t)
	idle := func() (found bool) {
		for _, id := range l.w.VMM.Processes() {
			s, _ := l.w.VMM.Spec(id)
			found = found || s.Idle
		}
		return found
	}
	if idle() {
		t.Error("a machine that waits gets a processor when nobody else wants it")
	}
	seen := make(chan bool, 1)
	l.w.SetFail(once("before end idle", func() error { seen <- idle(); return nil }))
	defer l.w.SetFail(nil)
	if _, ok := l.claim(lifecycle.Request{Name: "web", Spec: small}); !ok {
		t.Fatal("nothing was claimed")
	}
	if next := l.waits(); next.ID == waits.ID {
		t.Fatal("what was claimed waits")
	}
	if !<-seen {
		t.Error("what fills the pool does not leave the processor to others")
	}
}

// Who asks for a machine that one in the pool is gets that, under his name, and it
// is another machine than others of its template.
func TestClaim(t *testing.T) {
	l, waits := newPooled(t)
	if waits.StateReason != "it waits in the pool" || l.w.VMM.Status(string(waits.ID)) != vmm.Paused {
		t.Errorf("it waits because %q, its guest is %s", waits.StateReason, l.w.VMM.Status(string(waits.ID)))
	}
	if _, err := l.Agent(context.Background(), waits.ID); errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "banger's own") {
		t.Errorf("one that waits can be used: %v", err)
	}
	s := small
	s.Labels = map[string]string{"a": "b"}
	web, ok := l.claim(lifecycle.Request{Name: "web", Spec: s})
	if !ok || web.ID != waits.ID || web.Name != "web" || web.State != vm.Running || web.Spec.Labels["a"] != "b" || web.Purpose != vm.ForUser {
		t.Fatalf("claimed %+v, %t", web, ok)
	}
	did := l.w.Identities.Calls(string(web.ID))
	if !slices.Contains(did, "name web") {
		t.Errorf("its guest was told %q", did)
	}
	l.agrees("after a claim", web)
	// There is one, and no more until another run has ended.
	if _, ok, err := l.Claim(context.Background(), lifecycle.Request{Name: "db", Spec: small}); ok || err != nil {
		t.Errorf("a second claim: %t, %v", ok, err)
	}
	l.Used(web)
	next := l.waits()
	if next.MachineID == web.MachineID || next.Token == web.Token || next.UID == web.UID {
		t.Errorf("the next one is %+v, as %+v", next, web)
	}
}

// A machine that is leased to a call has the name that its guest has already, if
// nobody else has it: else its guest is told with the command.
func TestClaimEphemeral(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken %t", taken), func(t *testing.T) { testClaimEphemeral(t, taken) })
	}
}

func testClaimEphemeral(t *testing.T, taken bool) {
	l, waits := newPooled(t)
	did := l.w.Identities.Calls(string(waits.ID))
	named := slices.IndexFunc(did, func(call string) bool { return strings.HasPrefix(call, "name ") && call != "name waits" })
	if named < 0 {
		t.Fatalf("its guest was told %q", did)
	}
	called := strings.TrimPrefix(did[named], "name ")
	want := "" // nothing to be told
	if taken {
		l.createSmall(called, small)
	}
	v, ok := l.claim(lifecycle.Request{Ephemeral: true, Spec: small})
	if !ok || !v.Ephemeral || strings.HasPrefix(v.Name, "pool-") || (v.Name == called) == taken {
		t.Fatalf("claimed %+v, %t; its guest is called %s", v, ok, called)
	}
	if taken {
		want = v.Name
	}
	_, wake, told, err := l.AgentToRun(context.Background(), v.ID)
	if err != nil || wake.GetHostname() != want || wake.GetUnixNs() == 0 {
		t.Fatalf("a command tells %v, %v, want the name %q", wake, err, want)
	}
	told()
	if _, again, _, err := l.AgentToRun(context.Background(), v.ID); err != nil || again != nil {
		t.Errorf("the next command tells %v, %v", again, err)
	}
}

// What does not fit is not claimed, and waits on.
func TestClaimDoesNotFit(t *testing.T) {
	l, waits := newPooled(t)
	l.createSmall("taken", small)
	for name, r := range map[string]lifecycle.Request{
		"memory": {Spec: vm.Spec{MemoryBytes: 65 << 20}},
		"disk":   {Spec: vm.Spec{MemoryBytes: 64 << 20, DiskBytes: 99 << 20}},
		"image":  {Spec: vm.Spec{MemoryBytes: 64 << 20, Image: "other"}},
	} {
		if v, ok, err := l.Claim(context.Background(), r); ok || err != nil {
			t.Errorf("another %s: claimed %s, %v", name, v.Name, err)
		}
	}
	if _, ok, err := l.Claim(context.Background(), lifecycle.Request{Name: "taken", Spec: small}); ok || errkind.Of(err) != errkind.Conflict {
		t.Errorf("a name that is taken: %t, %v", ok, err)
	}
	if v, ok := l.claim(lifecycle.Request{Name: "web", Spec: small}); !ok || v.ID != waits.ID {
		t.Errorf("then it is claimed: %t, %s", ok, v.ID)
	}
}

// What waits is nobody's to stop, but does not stand in the way of deleting what
// it stands on.
func TestPoolMachineIsBangersOwn(t *testing.T) {
	l, waits := newPooled(t)
	for name, f := range map[string]func() error{
		"Stop":   func() error { _, err := l.Stop(context.Background(), waits.ID, time.Second); return err },
		"Kill":   func() error { _, err := l.Kill(context.Background(), waits.ID); return err },
		"Start":  func() error { _, err := l.Start(context.Background(), waits.ID, nobody); return err },
		"Resume": func() error { _, err := l.Resume(context.Background(), waits.ID); return err },
	} {
		if err := f(); errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "banger's own: it waits in the pool") {
			t.Errorf("%s = %v", name, err)
		}
	}
	if _, err := l.DeleteTemplate(context.Background(), waits.Template); err != nil {
		t.Error(err)
	}
	if err := l.DeleteImage(context.Background(), waits.Spec.Image); err != nil {
		t.Error(err)
	}
	l.nothingLeft("after all was deleted")
}

// A claim that is recorded and then fails leaves no machine in the way of the name.
func TestClaimFails(t *testing.T) {
	l, waits := newPooled(t)
	r := lifecycle.Request{Name: "web", Spec: small}
	l.w.SetFail(once("before resume", func() error { return errBoom }))
	deadline := time.Now().Add(10 * time.Second)
	for l.record(waits.ID).Name != "web" && time.Now().Before(deadline) {
		v, ok, err := l.Claim(context.Background(), r)
		if ok || err != nil {
			t.Fatalf("claimed %s, %v", v.Name, err)
		}
		if _, err := l.store.Get(context.Background(), waits.ID); errkind.Of(err) == errkind.NotFound {
			break
		}
	}
	l.w.SetFail(nil)
	l.nothingLeft("after it failed")
	mustStart(t, l, l.createSmall("web", small))
}

// One whose VMM ended while it waited is not given to anybody, and is gone.
func TestPoolMachineEnds(t *testing.T) {
	l, waits := newPooled(t)
	l.w.VMM.Crash(string(waits.ID))
	l.gone(waits.ID)
	if _, ok, err := l.Claim(context.Background(), lifecycle.Request{Spec: small}); ok || err != nil {
		t.Errorf("claimed: %t, %v", ok, err)
	}
	l.nothingLeft("after it ended")
}

// gone waits until there is no record of a machine.
func (l *life) gone(id vm.ID) {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		if _, err := l.store.Get(context.Background(), id); errkind.Of(err) == errkind.NotFound {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			l.t.Fatal("it is still there")
		}
	}
}

// What waited under an earlier daemon is nobody's, and goes.
func TestPoolAfterRestart(t *testing.T) {
	l, waits := newPooled(t)
	l.restart()
	l.gone(waits.ID)
	l.nothingLeft("after a restart")
	if _, ok, err := l.Claim(context.Background(), lifecycle.Request{Spec: small}); ok || err != nil {
		t.Errorf("claimed: %t, %v", ok, err)
	}
}

// The pool is drained when it is told to be, when nobody asks for it, and when
// memory is short; then none is added either.
func TestPoolDrains(t *testing.T) {
	l, waits := newPooled(t)
	if n, err := l.DrainPool(context.Background()); n > 1 || err != nil {
		t.Errorf("DrainPool = %d, %v", n, err)
	}
	l, waits = newPooled(t)
	l.TrimPool()
	l.record(waits.ID) // there is plenty
	atomic.StoreInt64(&l.w.Host.Taken, l.w.Host.Memory)
	deadline := time.Now().Add(10 * time.Second)
	for {
		l.TrimPool()
		if _, err := l.store.Get(context.Background(), waits.ID); errkind.Of(err) == errkind.NotFound {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it waits on without memory")
		}
		<-time.After(time.Millisecond)
	}
	web := l.createSmall("web", small)
	mustStart(t, l, web)
	l.Used(l.record(web.ID))
	l.close() // waits for what goes on in the background
	l.open()
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	vms, err := l.List(context.Background())
	if err != nil || len(vms) != 1 {
		t.Errorf("without memory there are %v, %v", vms, err)
	}
}

// Wherever the daemon dies while a machine is claimed, it is its user's, or gone;
// nothing of it is left then.
func TestClaimDies(t *testing.T) {
	for _, ephemeral := range []bool{false, true} {
		l, _ := newPooled(t)
		r := lifecycle.Request{Name: "web", Spec: small, Ephemeral: ephemeral}
		points := l.points(func() {
			if _, ok := l.claim(r); !ok {
				t.Fatal("nothing was claimed")
			}
		})
		for _, p := range points {
			t.Run(p, func(t *testing.T) {
				t.Parallel()
				l, waits := newPooled(t)
				l.crash(p, func() { _, _ = l.claim(r) })
				l.restart()
				got, err := l.store.Get(context.Background(), waits.ID)
				switch {
				case errkind.Of(err) == errkind.NotFound:
					l.nothingLeft("in the end")
				case err != nil:
					t.Fatal(err)
				case got.Purpose == vm.ForUser:
					l.guest(got.ID, vmm.Running)
					if _, wake, _, err := l.AgentToRun(context.Background(), got.ID); err != nil || wake != nil && wake.Hostname != "web" {
						t.Errorf("a command tells %v, %v", wake, err)
					}
				default:
					t.Errorf("the pool's machine is there: %s (%s)", got.State, got.StateReason)
				}
			})
		}
	}
}

// Who deletes an image does not wait for the template that is being made of it, and
// is not refused for that.
func TestDeleteImageWhileItsTemplateIsMade(t *testing.T) {
	l := newWarm(t)
	first := l.createSmall("first", small)
	mustStart(t, l, first)
	v := l.record(first.ID)
	if _, err := l.Delete(context.Background(), first.ID); err != nil {
		t.Fatal(err)
	}
	l.w.Silent.Store(true) // it would never be ready
	l.Used(v)
	deadline := time.Now().Add(10 * time.Second)
	for vms := []vm.VM(nil); len(vms) == 0 || vms[0].State != vm.Starting; vms, _ = l.List(context.Background()) {
		if time.Now().After(deadline) {
			t.Fatal("no template is being made")
		}
	}
	if err := l.DeleteImage(context.Background(), v.Spec.Image); err != nil {
		t.Error(err)
	}
	l.w.Silent.Store(false)
	l.close() // waits for what goes on in the background
	l.open()
	l.nothingLeft("after the image was deleted")
}

// The end of the daemon ends a machine that is being made for the pool.
func TestDaemonStopsWhileThePoolIsFilled(t *testing.T) {
	l := newWarm(t)
	l.pool = 1
	l.restart()
	l.makeTemplate()
	first := l.createSmall("first", small)
	mustStart(t, l, first)
	l.w.Silent.Store(true) // the next one never answers
	l.Used(l.record(first.ID))
	deadline := time.Now().Add(10 * time.Second)
	for making := false; !making; {
		vms, err := l.List(context.Background())
		if err != nil || time.Now().After(deadline) {
			t.Fatal("none is being made", err)
		}
		making = slices.ContainsFunc(vms, func(v vm.VM) bool { return v.Purpose == vm.ForPool && v.State == vm.Starting })
	}
	l.close()
	l.w.Silent.Store(false)
	l.open()
	vms, err := l.List(context.Background())
	if err != nil || len(vms) != 1 {
		t.Errorf("after the daemon has ended there are %v, %v", vms, err)
	}
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Delete(context.Background(), first.ID); err != nil {
		t.Fatal(err)
	}
	l.nothingLeft("after all")
}
