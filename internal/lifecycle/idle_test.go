package lifecycle_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/lifecycle"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A clock stands until it is moved.
type clock struct{ moved atomic.Int64 }

var clockBegan = time.Now()

func (c *clock) now() time.Time { return clockBegan.Add(time.Duration(c.moved.Load())) }

func (c *clock) move(d time.Duration) { c.moved.Add(int64(d)) }

// sessions are those that all guests tell of.
type sessions struct {
	mu   sync.Mutex
	list []*wire.SessionStatus // guarded by mu
	err  error                 // guarded by mu
}

func (s *sessions) set(err error, list ...*wire.SessionStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.list = err, list
}

type sessionDialer struct {
	guest.Dialer
	s *sessions
}

func (d sessionDialer) Dial(ctx context.Context, e guest.Endpoint) (guest.Agent, error) {
	a, err := d.Dialer.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	return sessionAgent{a, d.s}, nil
}

type sessionAgent struct {
	guest.Agent
	s *sessions
}

func (a sessionAgent) ListSessions(context.Context, *connect.Request[wire.ListSessionsRequest]) (*connect.Response[wire.ListSessionsResponse], error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	return connect.NewResponse(&wire.ListSessionsResponse{Sessions: a.s.list}), a.s.err
}

// seen waits until the manager knows that a machine's guest runs.
func (l *life) seen(v vm.VM) {
	l.t.Helper()
	for deadline := time.After(10 * time.Second); l.Status(v.ID) != vmm.Running; {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			l.t.Fatalf("the manager takes the guest for %q", l.Status(v.ID))
		}
	}
}

// idle makes a machine that runs one that is to be paused now.
func (l *life) idle(v vm.VM, after time.Duration) {
	l.t.Helper()
	l.seen(v)
	if _, err := l.SetAutoPause(context.Background(), v.ID, after); err != nil {
		l.t.Fatal(err)
	}
	l.LookForIdle() // it is seen
	l.clock.move(after)
}

// upTo lets time pass, in which the daemon looks for idle machines, and checks
// where that leaves one.
func (l *life) upTo(d time.Duration, v vm.VM, want vm.State) {
	l.t.Helper()
	const steps = 8
	for range steps {
		l.clock.move(d / steps)
		l.LookForIdle()
	}
	if got := l.record(v.ID); got.State != want {
		l.t.Errorf("it is %s (%s) after %s, want %s", got.State, got.StateReason, d, want)
	}
}

// autoPaused makes a machine that runs, and is paused when it is idle for ten
// minutes.
func (l *life) autoPaused(name string) vm.VM {
	l.t.Helper()
	after := 10 * time.Minute
	v, err := l.Create(context.Background(), lifecycle.Request{Name: name, AutoPause: &after}, nobody)
	if err != nil {
		l.t.Fatal(err)
	}
	if v.Spec.AutoPause != after {
		l.t.Errorf("it is to be paused after %s", v.Spec.AutoPause)
	}
	if v, err = l.Start(context.Background(), v.ID, nobody); err != nil {
		l.t.Fatal(err)
	}
	l.seen(v)
	return v
}

// A machine that nobody uses is paused, and resumed by use, from which its time
// begins anew; so it does when the daemon does.
func TestAutoPause(t *testing.T) {
	l := newLife(t)
	v, other := l.autoPaused("web"), l.create("other", false)
	mustStart(t, l, other)
	l.upTo(9*time.Minute, v, vm.Running)
	l.restart()
	l.seen(v)
	l.upTo(9*time.Minute, v, vm.Running)
	lines, stop := l.Notices(v.ID)
	defer stop()
	l.upTo(time.Minute, v, vm.Paused)
	if r := l.record(v.ID); !r.Held || r.StateReason != "idle for 10m0s" || l.w.VMM.Status(string(v.ID)) != vmm.Paused {
		t.Errorf("held %t, %q, its guest %s", r.Held, r.StateReason, l.w.VMM.Status(string(v.ID)))
	}
	if line := <-lines; !strings.Contains(line, "web is paused: idle for 10m0s; `banger vm resume web` lets it go on") {
		t.Errorf("told %q", line)
	}
	l.CheckRoom()
	l.restart()
	l.CheckRoom()
	l.upTo(time.Hour, v, vm.Paused)
	if _, err := l.Agent(context.Background(), v.ID); err != nil {
		t.Fatal(err)
	}
	l.upTo(9*time.Minute, v, vm.Running)
	l.upTo(time.Minute, v, vm.Paused)
	l.resume(v)
	l.upTo(9*time.Minute, v, vm.Running)
	l.upTo(time.Minute, v, vm.Paused)
	if r := l.record(other.ID); r.State != vm.Running {
		t.Errorf("one that says nothing of it is %s", r.State)
	}
	if _, err := l.Stop(context.Background(), v.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	l.upTo(time.Hour, v, vm.Stopped)
	l.agrees("in the end", v)
}

// inUse are the ways to use a machine. Each begins to and returns how to end it.
var inUse = map[string]func(l *life, v vm.VM) (end func()){
	"a call": func(l *life, v vm.VM) func() { return l.Use(v.ID) },
	"two calls, one of which ends": func(l *life, v vm.VM) func() {
		l.Use(v.ID)()
		end, other := l.Use(v.ID), l.Use(v.ID)
		other()
		other()
		return end
	},
	"a session": func(l *life, v vm.VM) func() {
		l.sessions.set(nil, &wire.SessionStatus{State: "exited", EndedNs: 1}, &wire.SessionStatus{State: "running"})
		return func() {
			ended := l.clock.now().UnixNano()
			l.sessions.set(nil, &wire.SessionStatus{State: "exited", EndedNs: ended}, &wire.SessionStatus{State: "exited", EndedNs: 1})
		}
	},
	"an agent that does not tell of sessions": func(l *life, v vm.VM) func() {
		l.sessions.set(errBoom)
		return func() {
			l.LookForIdle()
			l.sessions.set(connect.NewError(connect.CodeUnimplemented, errBoom))
			l.Use(v.ID)()
		}
	},
	"a connection": func(l *life, v vm.VM) func() {
		addr := netip.MustParseAddr(v.GuestIP)
		l.w.Net.Connect(addr, 0)
		return func() { l.w.Net.Disconnect(addr); l.LookForIdle() }
	},
	"a disk without room": func(l *life, v vm.VM) func() {
		l.room(10<<20, v.ID, vm.Paused)
		return func() { l.room(1<<30, v.ID, vm.Running); l.seen(v) }
	},
}

// One that is used is not paused, and is as long after its use as it says.
func TestInUse(t *testing.T) {
	for name, begin := range inUse {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			v := l.autoPaused("web")
			want := vm.Running
			end := begin(l, v)
			if strings.Contains(name, "disk") {
				want = vm.Paused // for another reason
			}
			l.upTo(time.Hour, v, want)
			if r := l.record(v.ID); r.Held {
				t.Errorf("it is held: %s", r.StateReason)
			}
			end()
			l.upTo(8*time.Minute, v, vm.Running)
			l.upTo(4*time.Minute, v, vm.Paused)
		})
	}
}

// One that sends is used, whether or not connections are followed; a packet now
// and then, and a connection of an earlier one's with its address, are none.
func TestInUseByPackets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		packets int64 // at each look
		follows error
		quiet   time.Duration // of a connection; 0: none
		want    vm.State
	}{
		{"it sends", 4, nil, 0, vm.Running},
		{"it sends, and nobody follows", 4, errkind.New(errkind.Host, "no conntrack"), 0, vm.Running},
		{"nobody follows", 0, errkind.New(errkind.Host, "no conntrack"), time.Second, vm.Paused},
		{"it asks for the time", 3, nil, 0, vm.Paused},
		{"an earlier one's connection", 0, nil, 24 * time.Hour, vm.Paused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLife(t)
			v := l.autoPaused("web")
			l.w.Net.FollowNothing(tt.follows)
			if tt.quiet > 0 {
				l.w.Net.Connect(netip.MustParseAddr(v.GuestIP), tt.quiet)
			}
			for range 5 {
				l.w.Net.Send(string(v.ID), tt.packets)
				l.clock.move(3 * time.Minute)
				l.LookForIdle()
			}
			if r := l.record(v.ID); r.State != tt.want {
				t.Errorf("it is %s (%s), want %s", r.State, r.StateReason, tt.want)
			}
		})
	}
}

// Before a machine is paused it is looked at once more, however short a while ago
// it was.
func TestLooksBeforeItPauses(t *testing.T) {
	l := newLife(t)
	v := l.autoPaused("web")
	l.clock.move(10*time.Minute - time.Second)
	l.LookForIdle()
	l.w.Net.Connect(netip.MustParseAddr(v.GuestIP), 0)
	l.clock.move(time.Second)
	l.LookForIdle()
	if r := l.record(v.ID); r.State != vm.Running {
		t.Errorf("it is %s (%s)", r.State, r.StateReason)
	}
}

// A machine that is leased to a call is used by it, and what is not to be paused
// is not.
func TestNotAutoPaused(t *testing.T) {
	l := newLife(t)
	after := time.Second
	e, err := l.Create(context.Background(), lifecycle.Request{Ephemeral: true, AutoPause: &after}, nobody)
	if err != nil {
		t.Fatal(err)
	}
	mustStart(t, l, e)
	v := l.autoPaused("web")
	l.seen(e)
	if _, err := l.SetAutoPause(context.Background(), v.ID, 0); err != nil {
		t.Fatal(err)
	}
	l.upTo(time.Hour, v, vm.Running)
	l.upTo(time.Hour, e, vm.Running)
}

// What is configured holds for a machine that is made without a word of it.
func TestAutoPauseAsConfigured(t *testing.T) {
	l := newLife(t)
	old := l.create("old", false)
	l.autoPause = 10 * time.Minute
	l.restart()
	never := time.Duration(0)
	off, err := l.Create(context.Background(), lifecycle.Request{Name: "off", AutoPause: &never}, nobody)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []vm.VM{l.create("web", false), off, old} {
		want := time.Duration(0)
		if v.Name == "web" {
			want = l.autoPause
		}
		if r := l.record(v.ID); r.Spec.AutoPause != want {
			t.Errorf("%s is to be paused after %s, want %s", v.Name, r.Spec.AutoPause, want)
		}
	}
}

// What makes no sense is refused, and changes nothing.
func TestSetAutoPause(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for _, d := range []time.Duration{-time.Minute, 1, time.Second - 1} {
		if _, err := l.SetAutoPause(context.Background(), v.ID, d); errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), "at least 1s") {
			t.Errorf("SetAutoPause(%s) = %v", d, err)
		}
		if _, err := l.Create(context.Background(), lifecycle.Request{AutoPause: &d}, nobody); errkind.Of(err) != errkind.Usage {
			t.Errorf("Create with %s = %v", d, err)
		}
	}
	if r := l.record(v.ID); r.Spec.AutoPause != 0 {
		t.Errorf("it is to be paused after %s", r.Spec.AutoPause)
	}
	if _, err := l.SetAutoPause(context.Background(), "nosuch", time.Minute); errkind.Of(err) != errkind.NotFound {
		t.Errorf("SetAutoPause of none = %v", err)
	}
	// Of one that is off, it holds from its next start on.
	if _, err := l.SetAutoPause(context.Background(), v.ID, time.Minute); err != nil {
		t.Fatal(err)
	}
	mustStart(t, l, v)
	l.seen(v)
	l.upTo(50*time.Second, v, vm.Running)
	l.upTo(10*time.Second, v, vm.Paused)
}

// Whoever comes while a machine is being paused has it running.
func TestUsedWhileBeingPaused(t *testing.T) {
	for _, point := range []string{"before pause", "after pause"} {
		t.Run(point, func(t *testing.T) {
			l := newLife(t)
			v := l.autoPaused("web")
			end := func() {}
			l.w.SetFail(once(point, func() error { end = l.Use(v.ID); return nil }))
			l.upTo(10*time.Minute, v, vm.Running)
			l.w.SetFail(nil)
			defer func() { end() }()
			if st := l.w.VMM.Status(string(v.ID)); st != vmm.Running {
				t.Errorf("its guest is %s", st)
			}
			l.CheckRoom()
			l.guest(v.ID, vmm.Running)
			if n := l.w.ClocksSet.Load(); n != 1 {
				t.Errorf("its clock was set %d times", n)
			}
		})
	}
}

// However use and pause meet, whoever uses a machine has it running in the end.
func TestUseMeetsPause(t *testing.T) {
	l := newLife(t)
	v := l.autoPaused("web")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				l.clock.move(10 * time.Minute)
				l.LookForIdle()
			}
		}
	})
	for range 50 {
		end := l.Use(v.ID)
		if _, err := l.Agent(context.Background(), v.ID); err != nil {
			t.Fatal(err)
		}
		l.guest(v.ID, vmm.Running)
		if got := l.becomes(v.ID, vm.Running); got.Held {
			t.Errorf("it runs and is held")
		}
		end()
		l.becomes(v.ID, vm.Paused)
	}
}

// One whose VMM does not pause it runs on, and that is tried again.
func TestAutoPauseFails(t *testing.T) {
	l := newLife(t)
	v := l.autoPaused("web")
	l.w.SetFail(once("before pause", func() error { return errBoom }))
	l.upTo(10*time.Minute, v, vm.Running)
	l.guest(v.ID, vmm.Running)
	l.upTo(8*time.Minute, v, vm.Running)
	l.upTo(3*time.Minute, v, vm.Paused)
}
