package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/vm"
)

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)

func options() Options {
	return Options{Now: func() time.Time { return t0 }, UIDs: vm.UIDRange{Base: 5000, Count: 1000}}
}

// newStore returns an empty store in a directory whose name needs escaping.
func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "banger 100%?#.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// machine is a record as a user would ask for it.
func machine(name string) vm.VM {
	return vm.VM{
		Name: name, State: vm.Created, Token: "0123456789abcdef0123456789abcdef",
		Spec: vm.Spec{
			Image: "busybox", ImageID: "sha-1", Kernel: "debian-cloud", Driver: "qemu",
			VCPUs: 2, MemoryBytes: 1 << 40, DiskBytes: 8 << 30,
			Labels: map[string]string{"a": "1", "ü \"'": "\n<&>\x00"}, Network: "none", AutoPause: 10 * time.Minute,
		},
	}
}

func mustCreate(t testing.TB, s *Store, v vm.VM) vm.VM {
	t.Helper()
	got, err := s.Create(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// fails reports an error that is not of kind k, does not hold text, or has no
// hint although it needs one.
func fails(t testing.TB, err error, k errkind.Kind, text string) {
	t.Helper()
	if err == nil || errkind.Of(err) != k || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v of kind %q, want kind %q and %q in it", err, errkind.Of(err), k, text)
	}
	if (k == errkind.Host || k == errkind.NotFound || k == errkind.Conflict) && len(errkind.Hints(err)) == 0 {
		t.Errorf("error %v has no hint", err)
	}
}

func TestCreate(t *testing.T) {
	s := newStore(t, options())
	want := machine("web")
	want.Ephemeral, want.GuestIP, want.StateReason, want.LastError = true, "10.0.0.2", "why", "it failed"
	got := mustCreate(t, s, want)
	if !got.ID.Valid() {
		t.Errorf("id %q", got.ID)
	}
	want.ID, want.UID, want.VsockCID, want.CreatedAt = got.ID, 5000, 5000, t0
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Create (-want +got):\n%s", d)
	}
	again, err := s.Get(t.Context(), got.ID)
	if d := cmp.Diff(want, again); err != nil || d != "" {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}

	bare := mustCreate(t, s, vm.VM{ID: "00000001", Name: "bare", Spec: vm.Spec{VCPUs: 1, MemoryBytes: 1, DiskBytes: 1, Network: "none", Labels: map[string]string{}}})
	if bare.ID != "00000001" || bare.State != vm.Created || !bare.StartedAt.IsZero() || bare.Spec.Labels != nil {
		t.Errorf("Create gives %+v", bare)
	}
}

// A new machine gets the numbers after the highest, and where there is none
// after it, the lowest that is free.
func TestCreateFreeNumbers(t *testing.T) {
	o := options()
	o.UIDs = vm.UIDRange{Base: 7000, Count: 3}
	s := newStore(t, o)
	var vs []vm.VM
	for i := range 3 {
		v := mustCreate(t, s, machine(fmt.Sprint("m", i)))
		if v.UID != 7000+uint32(i) || v.VsockCID != v.UID {
			t.Errorf("machine %d has uid %d, cid %d", i, v.UID, v.VsockCID)
		}
		vs = append(vs, v)
	}
	_, err := s.Create(t.Context(), machine("more"))
	fails(t, err, errkind.Host, "3 user ids from 7000")
	if err := s.Delete(t.Context(), vs[1].ID); err != nil {
		t.Fatal(err)
	}
	if v := mustCreate(t, s, machine("more")); v.UID != 7001 || v.VsockCID != 7001 {
		t.Errorf("it has uid %d, cid %d", v.UID, v.VsockCID)
	}

	// A configuration that was changed: what others have lies outside.
	s.opts.UIDs = vm.UIDRange{Base: 6999, Count: 2}
	if v := mustCreate(t, s, machine("below")); v.UID != 6999 {
		t.Errorf("it has uid %d", v.UID)
	}
	_, err = s.Create(t.Context(), machine("full"))
	fails(t, err, errkind.Host, "2 user ids from 6999")
	s.opts.UIDs = vm.UIDRange{}
	_, err = s.Create(t.Context(), machine("none"))
	fails(t, err, errkind.Host, "0 user ids")
}

func TestCreateRefuses(t *testing.T) {
	s := newStore(t, options())
	mustCreate(t, s, machine("web"))
	bad := func(f func(*vm.VM)) vm.VM {
		v := machine("db")
		f(&v)
		return v
	}
	tests := []struct {
		name string
		v    vm.VM
		kind errkind.Kind
		text string
	}{
		{"name taken", machine("web"), errkind.Conflict, `machine "web" exists already`},
		{"bad name", machine("../x"), errkind.Usage, "no name"},
		{"no CPU", bad(func(v *vm.VM) { v.Spec.VCPUs = 0 }), errkind.Internal, "vcpus"},
		{"no memory", bad(func(v *vm.VM) { v.Spec.MemoryBytes = -1 }), errkind.Internal, "memory_bytes"},
		{"bad state", bad(func(v *vm.VM) { v.State = "happy" }), errkind.Internal, "state"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Create(t.Context(), tt.v)
			fails(t, err, tt.kind, tt.text)
		})
	}
	if vs, err := s.List(t.Context()); len(vs) != 1 || err != nil {
		t.Errorf("List gives %v, %v", vs, err)
	}
}

// A random id that is taken is drawn anew.
func TestCreateIDTaken(t *testing.T) {
	s := newStore(t, options())
	a := mustCreate(t, s, machine("a"))
	v := machine("b")
	v.ID = a.ID
	b := mustCreate(t, s, v)
	if b.ID == a.ID || !b.ID.Valid() {
		t.Errorf("ids %s and %s", a.ID, b.ID)
	}
	if got, err := s.Get(t.Context(), a.ID); err != nil || got.Name != "a" {
		t.Errorf("Get gives %+v, %v", got, err)
	}
}

func TestCreateConcurrently(t *testing.T) {
	s := newStore(t, options())
	var wg sync.WaitGroup
	var mu sync.Mutex
	conflicts := 0
	for i := range 40 {
		wg.Go(func() {
			_, err := s.Create(t.Context(), machine(fmt.Sprint("m", i%20)))
			if _, lerr := s.List(t.Context()); lerr != nil {
				t.Error(lerr)
			}
			if errkind.Of(err) == errkind.Conflict {
				mu.Lock()
				conflicts++
				mu.Unlock()
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	vs, err := s.List(t.Context())
	if err != nil || len(vs) != 20 || conflicts != 20 {
		t.Fatalf("%d machines, %d conflicts, %v", len(vs), conflicts, err)
	}
	uids := make(map[uint32]bool)
	for _, v := range vs {
		uids[v.UID] = true
	}
	if len(uids) != 20 {
		t.Errorf("%d user ids", len(uids))
	}
}

func TestList(t *testing.T) {
	now := t0
	o := options()
	o.Now = func() time.Time { return now }
	s := newStore(t, o)
	if vs, err := s.List(t.Context()); err != nil || vs == nil || len(vs) != 0 {
		t.Errorf("List of nothing gives %#v, %v", vs, err)
	}
	for _, m := range []struct {
		name  string
		after time.Duration
	}{{"c", 1}, {"b", 0}, {"a", 1}, {"d", -1}} {
		now = t0.Add(m.after)
		mustCreate(t, s, machine(m.name))
	}
	vs, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range vs {
		names = append(names, v.Name)
	}
	if want := []string{"d", "b", "a", "c"}; !slices.Equal(names, want) {
		t.Errorf("List gives %v, want %v", names, want)
	}
}

func TestResize(t *testing.T) {
	s := newStore(t, options())
	v := mustCreate(t, s, machine("web"))
	want := v
	want.Spec.VCPUs, want.Spec.DiskBytes = 3, 1<<30
	got, err := s.Resize(t.Context(), v.ID, vm.Size{VCPUs: 3, DiskBytes: 1 << 30})
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("Resize: %v (-want +got):\n%s", err, d)
	}
	again, err := s.Get(t.Context(), v.ID)
	if d := cmp.Diff(want, again); err != nil || d != "" {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}
	if _, err := s.Change(t.Context(), v.ID, vm.Change{To: vm.Starting}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Resize(t.Context(), v.ID, vm.Size{VCPUs: 1})
	fails(t, err, errkind.Conflict, "is starting")
	_, err = s.Resize(t.Context(), "01234567", vm.Size{VCPUs: 1})
	fails(t, err, errkind.NotFound, "01234567")
}

// When a machine is paused can change whatever it does.
func TestSetAutoPause(t *testing.T) {
	s := newStore(t, options())
	want := mustCreate(t, s, machine("web"))
	for _, d := range []time.Duration{90 * time.Second, 0} {
		want.Spec.AutoPause = d
		got, err := s.SetAutoPause(t.Context(), want.ID, d)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("SetAutoPause: %v (-want +got):\n%s", err, d)
		}
		again, err := s.Get(t.Context(), want.ID)
		if d := cmp.Diff(want, again); err != nil || d != "" {
			t.Errorf("Get: %v (-want +got):\n%s", err, d)
		}
		if want, err = s.Change(t.Context(), want.ID, vm.Change{To: vm.Starting, Found: true}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.SetAutoPause(t.Context(), want.ID, time.Millisecond); err == nil {
		t.Errorf("a time that is none was recorded: %+v", got)
	}
	_, err := s.SetAutoPause(t.Context(), "01234567", 0)
	fails(t, err, errkind.NotFound, "01234567")
}

func TestResolve(t *testing.T) {
	s := newStore(t, options())
	for id, name := range map[vm.ID]string{"abc00001": "web", "abc00002": "db", "def00003": "abc", "12345678": "def00003"} {
		v := machine(name)
		v.ID = id
		mustCreate(t, s, v)
	}
	for name, want := range map[string]bool{"web": true, "def00003": true, "abc00001": false, "": false} {
		if has, err := s.HasName(t.Context(), name); has != want || err != nil {
			t.Errorf("HasName(%q) = %t, %v", name, has, err)
		}
	}
	tests := []struct {
		ref  string
		want vm.ID
		kind errkind.Kind
		text string
	}{
		{ref: "web", want: "abc00001"},
		{ref: "abc00002", want: "abc00002"},
		{ref: "1", want: "12345678"},
		{ref: "de", want: "def00003"},
		{ref: "abc", want: "def00003"},      // a name before a prefix
		{ref: "def00003", want: "12345678"}, // and before an id
		{ref: "abc0", kind: errkind.Usage, text: `"abc0" begins the ids of 2 machines: web (abc00001), db (abc00002)`},
		{ref: "wbe", kind: errkind.NotFound, text: `no machine "wbe"; there is abc, db, web`},
		{ref: "", kind: errkind.NotFound, text: `no machine ""`},
		{ref: "*", kind: errkind.NotFound, text: `no machine "*"`},
		{ref: "ABC00002", kind: errkind.NotFound, text: "no machine"},
		{ref: "abc00002 ", kind: errkind.NotFound, text: "no machine"},
		{ref: "12345678" + "0", kind: errkind.NotFound, text: "no machine"},
		{ref: "' OR 1=1 --", kind: errkind.NotFound, text: "no machine"},
		{ref: strings.Repeat("x", 1<<20), kind: errkind.NotFound, text: "no machine"},
	}
	for _, tt := range tests {
		v, err := s.Resolve(t.Context(), tt.ref)
		if tt.kind != "" {
			fails(t, err, tt.kind, tt.text)
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		} else if err != nil || v.ID != tt.want {
			t.Errorf("Resolve(%q) gives %s, %v, want %s", tt.ref, v.ID, err, tt.want)
		}
	}
}

func TestResolveAmongMany(t *testing.T) {
	s := newStore(t, options())
	for i := range 7 {
		v := machine(fmt.Sprint("m", i))
		v.ID = vm.ID(fmt.Sprintf("aa00000%d", i))
		mustCreate(t, s, v)
	}
	_, err := s.Resolve(t.Context(), "aa")
	fails(t, err, errkind.Usage, "m4 (aa000004), and 2 more")
}

func TestResolveOfNone(t *testing.T) {
	s := newStore(t, options())
	_, err := s.Resolve(t.Context(), "web")
	fails(t, err, errkind.NotFound, `no machine "web"`)
	_, err = s.Get(t.Context(), "01234567")
	fails(t, err, errkind.NotFound, `no machine with id "01234567"`)
	_, err = s.Change(t.Context(), "01234567", vm.Change{To: vm.Starting})
	fails(t, err, errkind.NotFound, `no machine with id "01234567"`)
	if err := s.Delete(t.Context(), "01234567"); err != nil {
		t.Errorf("Delete of what is not there: %v", err)
	}
}

func TestChange(t *testing.T) {
	s := newStore(t, options())
	v := mustCreate(t, s, machine("web"))
	text, none := "launch: no QEMU", ""
	s.opts.Now = func() time.Time { return t0.Add(time.Hour).Local() }
	for _, step := range []struct {
		c    vm.Change
		want func(*vm.VM)
	}{
		{vm.Change{To: vm.Starting, ImageID: "sha-2"}, func(v *vm.VM) { v.State, v.Spec.ImageID = vm.Starting, "sha-2" }},
		{vm.Change{To: vm.Stopped, Reason: "launch failed", LastError: &text}, func(v *vm.VM) {
			v.State, v.StateReason, v.LastError = vm.Stopped, "launch failed", text
		}},
		{vm.Change{To: vm.Starting}, func(v *vm.VM) { v.State, v.StateReason = vm.Starting, "" }},
		{vm.Change{To: vm.Running, Started: true, LastError: &none}, func(v *vm.VM) {
			v.State, v.LastError, v.StartedAt = vm.Running, "", t0.Add(time.Hour)
		}},
		{vm.Change{To: vm.Paused, Reason: "on request", Held: true}, func(v *vm.VM) {
			v.State, v.StateReason, v.Held = vm.Paused, "on request", true
		}},
		{vm.Change{To: vm.Running}, func(v *vm.VM) { v.State, v.StateReason, v.Held = vm.Running, "", false }},
		{vm.Change{To: vm.Created, Reason: "found", Found: true}, func(v *vm.VM) { v.State, v.StateReason = vm.Created, "found" }},
	} {
		got, err := s.Change(t.Context(), v.ID, step.c)
		if err != nil {
			t.Fatalf("Change(%+v): %v", step.c, err)
		}
		step.want(&v)
		if d := cmp.Diff(v, got); d != "" {
			t.Errorf("Change(%+v) (-want +got):\n%s", step.c, d)
		}
		read, err := s.Get(t.Context(), v.ID)
		if d := cmp.Diff(v, read); err != nil || d != "" {
			t.Errorf("Get after Change(%+v): %v (-want +got):\n%s", step.c, err, d)
		}
	}
	if _, err := s.Change(t.Context(), v.ID, vm.Change{To: "happy", Found: true}); err == nil {
		t.Error("a state that is none is recorded")
	}
	if _, err := s.Change(t.Context(), v.ID, vm.Change{To: vm.Running, Held: true, Found: true}); err == nil {
		t.Error("it is recorded that a machine runs and is held")
	}
}

// A machine of the pool becomes a user's once, under a name that is free.
func TestClaim(t *testing.T) {
	s := newStore(t, options())
	web := mustCreate(t, s, machine("web"))
	waits := machine("pool-1")
	waits.Purpose, waits.Spec.Network = vm.ForPool, "none"
	v := mustCreate(t, s, waits)
	c := vm.Claim{Name: "db", Labels: map[string]string{"a": "b"}, Ephemeral: true, AutoPause: time.Minute}
	_, err := s.Claim(t.Context(), v.ID, c)
	fails(t, err, errkind.Conflict, `machine "pool-1" does not wait in the pool`)
	if v, err = s.Change(t.Context(), v.ID, vm.Change{To: vm.Paused, Reason: "it waits", Held: true, Found: true}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Claim(t.Context(), v.ID, vm.Claim{Name: "web"})
	fails(t, err, errkind.Conflict, `machine "web" exists already`)
	_, err = s.Claim(t.Context(), v.ID, vm.Claim{Name: "no name"})
	if err == nil {
		t.Error("a name that is none was given")
	}
	if now, err := s.Get(t.Context(), v.ID); err != nil || cmp.Diff(v, now) != "" {
		t.Errorf("a claim that failed changed it: %v, %s", err, cmp.Diff(v, now))
	}
	s.opts.Now = func() time.Time { return t0.Add(time.Hour) }
	got, err := s.Claim(t.Context(), v.ID, c)
	v.Name, v.Spec.Labels, v.Ephemeral, v.Purpose = "db", c.Labels, true, vm.ForUser
	v.State, v.StateReason, v.Held, v.Spec.AutoPause = vm.Running, "", false, time.Minute
	v.CreatedAt, v.StartedAt = t0.Add(time.Hour), t0.Add(time.Hour)
	if d := cmp.Diff(v, got); err != nil || d != "" {
		t.Errorf("Claim: %v (-want +got):\n%s", err, d)
	}
	for _, id := range []vm.ID{v.ID, web.ID} {
		_, err = s.Claim(t.Context(), id, vm.Claim{Name: "again"})
		fails(t, err, errkind.Conflict, "does not wait in the pool")
	}
}

// Each pair of states: what package vm allows is recorded, the rest is refused
// in words and changes nothing.
func TestChangeEveryTransition(t *testing.T) {
	s := newStore(t, options())
	states := []vm.State{vm.Created, vm.Starting, vm.Running, vm.Paused, vm.Stopping, vm.Stopped, vm.Deleting, vm.Faulty}
	v := mustCreate(t, s, machine("web"))
	for _, from := range states {
		for _, to := range states {
			if _, err := s.Change(t.Context(), v.ID, vm.Change{To: from, Reason: "before", Found: true}); err != nil {
				t.Fatal(err)
			}
			got, err := s.Change(t.Context(), v.ID, vm.Change{To: to, Reason: "after"})
			if from.Check(to) == nil {
				if err != nil || got.State != to || got.StateReason != "after" {
					t.Errorf("%s to %s: %+v, %v", from, to, got, err)
				}
				continue
			}
			fails(t, err, errkind.Conflict, `machine "web" `)
			got, err = s.Get(t.Context(), v.ID)
			if err != nil || got.State != from || got.StateReason != "before" {
				t.Errorf("%s to %s is refused, then it is %s (%s), %v", from, to, got.State, got.StateReason, err)
			}
		}
	}
}

// The failing twin: a method that fails records nothing.
func TestOnlyFail(t *testing.T) {
	s := newStore(t, options())
	v := mustCreate(t, s, machine("web"))
	boom := errors.New("boom")
	var failing string
	s.opts.TestOnlyFail = func(method string) error {
		if method == failing {
			return boom
		}
		return nil
	}
	ctx := t.Context()
	methods := map[string]func() error{
		"Create":  func() error { _, err := s.Create(ctx, machine("db")); return err },
		"Get":     func() error { _, err := s.Get(ctx, v.ID); return err },
		"Resolve": func() error { _, err := s.Resolve(ctx, "web"); return err },
		"List":    func() error { _, err := s.List(ctx); return err },
		"Change":  func() error { _, err := s.Change(ctx, v.ID, vm.Change{To: vm.Starting}); return err },
		"Delete":  func() error { return s.Delete(ctx, v.ID) },
	}
	for name, call := range methods {
		failing = name
		if err := call(); !errors.Is(err, boom) {
			t.Errorf("%s gives %v", name, err)
		}
	}
	failing = ""
	vs, err := s.List(ctx)
	if d := cmp.Diff([]vm.VM{v}, vs); err != nil || d != "" {
		t.Errorf("List: %v (-want +got):\n%s", err, d)
	}
}

func TestCanceled(t *testing.T) {
	s := newStore(t, options())
	v := mustCreate(t, s, machine("web"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(context.Canceled)
	_, err := s.Change(ctx, v.ID, vm.Change{To: vm.Starting})
	fails(t, err, errkind.Canceled, "canceled")

	// Between what is done and the commit.
	ctx, stop := context.WithCancel(t.Context())
	s.opts.TestOnlyFail = func(string) error { stop(); return nil }
	_, err = s.Change(ctx, v.ID, vm.Change{To: vm.Starting})
	fails(t, err, errkind.Canceled, "canceled")
	s.opts.TestOnlyFail = nil
	got, err := s.Get(t.Context(), v.ID)
	if err != nil || got.State != vm.Created {
		t.Errorf("Get gives %s, %v", got.State, err)
	}
}
