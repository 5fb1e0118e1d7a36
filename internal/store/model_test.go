package store

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"banger/internal/errkind"
	"banger/internal/vm"
)

var anyState = rapid.SampledFrom([]vm.State{
	vm.Created, vm.Starting, vm.Running, vm.Paused, vm.Stopping, vm.Stopped, vm.Deleting, vm.Faulty,
})

// model is the store as a map, and how it is used.
type model struct {
	s   *Store
	m   map[vm.ID]vm.VM
	now time.Time

	subnet netip.Prefix
}

// subnets have room for five machines each.
var subnets = []netip.Prefix{netip.MustParsePrefix("10.9.8.16/29"), netip.MustParsePrefix("192.168.7.0/29")}

// The store behaves as a map with rules, also over being closed and opened.
func TestModel(t *testing.T) {
	s := newStore(t, options())
	rapid.Check(t, func(t *rapid.T) {
		d := &model{s: s, m: make(map[vm.ID]vm.VM), now: t0}
		s.opts.Now = func() time.Time { return d.now }
		s.opts.UIDs = vm.UIDRange{Base: 5000, Count: 6}
		d.subnet = subnets[0]
		if err := s.SetSubnet(t.Context(), d.subnet); err != nil {
			t.Fatal(err)
		}
		defer d.empty(t)
		t.Repeat(map[string]func(*rapid.T){
			"":        d.check,
			"create":  d.create,
			"change":  d.change,
			"delete":  d.delete,
			"resolve": d.resolve,
			"move":    d.move,
		})
	})
}

// empty leaves nothing for the next run.
func (d *model) empty(t *rapid.T) {
	for id := range d.m {
		if err := d.s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *model) check(t *rapid.T) {
	d.addresses(t)
	if got, err := d.s.Subnet(t.Context()); err != nil || got != d.subnet {
		t.Fatalf("Subnet = %s, %v, want %s", got, err, d.subnet)
	}
	want := []vm.VM{}
	for _, v := range d.m {
		want = append(want, v)
	}
	slices.SortFunc(want, func(a, b vm.VM) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Name, b.Name))
	})
	got, err := d.s.List(t.Context())
	if diff := gocmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("List: %v (-model +store):\n%s", err, diff)
	}
}

func (d *model) create(t *rapid.T) {
	d.now = d.now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "later")))
	v := vm.VM{
		ID:    vm.ID(rapid.StringMatching(`[0-3]{8}`).Draw(t, "id")),
		Name:  rapid.StringMatching(`[a-c1-3]{1,2}`).Draw(t, "name"),
		State: vm.Created,
		Spec: vm.Spec{
			Image: rapid.String().Draw(t, "image"), VCPUs: 1, MemoryBytes: 1, DiskBytes: 1,
			Labels:  rapid.MapOfN(rapid.String(), rapid.String(), 1, 3).Draw(t, "labels"),
			Network: rapid.SampledFrom([]string{"nat", "nat", "nat", "none"}).Draw(t, "network"),
		},
	}
	got, err := d.s.Create(t.Context(), v)
	switch {
	case len(d.m) == 6:
		if errkind.Of(err) != errkind.Host {
			t.Fatalf("the seventh of six: %v", err)
		}
		return
	case v.Spec.Network == "nat" && d.addresses(t) == 5:
		if errkind.Of(err) != errkind.Host {
			t.Fatalf("the sixth of five addresses: %v", err)
		}
		return
	case d.named(v.Name) != "":
		if errkind.Of(err) != errkind.Conflict {
			t.Fatalf("name taken: %v", err)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	if _, taken := d.m[v.ID]; !taken && got.ID != v.ID || taken && got.ID == v.ID {
		t.Fatalf("asked for %s, got %s", v.ID, got.ID)
	}
	v.ID, v.CreatedAt = got.ID, d.now
	v.UID = d.free(5000, 5006, func(v vm.VM) uint32 { return v.UID })
	v.VsockCID = d.free(5000, 5006, func(v vm.VM) uint32 { return v.VsockCID })
	v.GuestIP = got.GuestIP // check says whether that can be
	d.m[v.ID] = v
}

// move changes the subnet: every machine keeps its part of the address.
func (d *model) move(t *rapid.T) {
	to := rapid.SampledFrom(subnets).Draw(t, "subnet")
	if err := d.s.SetSubnet(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	for id, v := range d.m {
		if v.GuestIP == "" {
			continue
		}
		old := netip.MustParseAddr(v.GuestIP)
		v.GuestIP = subnet{p: to}.addr(hostPart(old, 29)).String()
		d.m[id] = v
	}
	d.subnet = to
}

// addresses returns how many machines have one, and checks that it is theirs
// alone and can be one.
func (d *model) addresses(t *rapid.T) int {
	seen := make(map[string]bool)
	for _, v := range d.m {
		if (v.GuestIP != "") != (v.Spec.Network == "nat") {
			t.Fatalf("machine with network %q has address %q", v.Spec.Network, v.GuestIP)
		}
		if v.GuestIP == "" {
			continue
		}
		a := netip.MustParseAddr(v.GuestIP)
		if h := hostPart(a, 29); seen[v.GuestIP] || !d.subnet.Contains(a) || h < 2 || h > 6 {
			t.Fatalf("address %s in %s", a, d.subnet)
		}
		seen[v.GuestIP] = true
	}
	return len(seen)
}

func (d *model) change(t *rapid.T) {
	d.now = d.now.Add(time.Second)
	id := d.some(t)
	c := vm.Change{
		To: anyState.Draw(t, "to"), Reason: rapid.String().Draw(t, "reason"),
		Started: rapid.Bool().Draw(t, "started"), ImageID: rapid.SampledFrom([]string{"", "x"}).Draw(t, "image"),
		Found: rapid.Bool().Draw(t, "found"), LastError: rapid.Ptr(rapid.String(), true).Draw(t, "error"),
	}
	c.Held = c.To == vm.Paused && rapid.Bool().Draw(t, "held")
	c.Cold = rapid.Bool().Draw(t, "cold")
	got, err := d.s.Change(t.Context(), id, c)
	v := d.m[id]
	if !c.Found && v.State.Check(c.To) != nil {
		if errkind.Of(err) != errkind.Conflict {
			t.Fatalf("%s to %s: %v", v.State, c.To, err)
		}
		return
	}
	v.State, v.StateReason, v.Held = c.To, c.Reason, c.Held
	if c.Started {
		v.StartedAt = d.now
	}
	if c.ImageID != "" {
		v.Spec.ImageID = c.ImageID
	}
	if c.LastError != nil {
		v.LastError = *c.LastError
	}
	if c.Cold {
		v.Template = ""
	}
	if diff := gocmp.Diff(v, got); err != nil || diff != "" {
		t.Fatalf("Change: %v (-model +store):\n%s", err, diff)
	}
	d.m[id] = v
}

func (d *model) delete(t *rapid.T) {
	id := d.some(t)
	if err := d.s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	delete(d.m, id)
}

func (d *model) resolve(t *rapid.T) {
	ref := rapid.StringMatching(`[a-c0-3]{1,3}`).Draw(t, "ref")
	want := d.named(ref)
	n := 0
	for id := range d.m {
		if want == "" && strings.HasPrefix(string(id), ref) {
			n++
		}
	}
	got, err := d.s.Resolve(t.Context(), ref)
	switch {
	case want != "" && (err != nil || got.ID != want),
		want == "" && n == 0 && errkind.Of(err) != errkind.NotFound,
		want == "" && n == 1 && (err != nil || !strings.HasPrefix(string(got.ID), ref)),
		want == "" && n > 1 && errkind.Of(err) != errkind.Usage:
		t.Fatalf("Resolve(%q) gives %s, %v; %d have that prefix, %q that name", ref, got.ID, err, n, want)
	}
}

// some draws the id of a machine that is there.
func (d *model) some(t *rapid.T) vm.ID {
	if len(d.m) == 0 {
		t.Skip("no machine")
	}
	ids := make([]vm.ID, 0, len(d.m))
	for id := range d.m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return rapid.SampledFrom(ids).Draw(t, "machine")
}

func (d *model) named(name string) vm.ID {
	for id, v := range d.m {
		if v.Name == name {
			return id
		}
	}
	return ""
}

// free is a number from first on, and below end, that no machine has: the one
// after the highest, or else the lowest.
func (d *model) free(first, end uint32, of func(vm.VM) uint32) uint32 {
	taken := make(map[uint32]bool)
	next := first
	for _, v := range d.m {
		n := of(v)
		taken[n] = true
		if n >= first && n < end {
			next = max(next, n+1)
		}
	}
	if next < end {
		return next
	}
	for next = first; taken[next]; {
		next++
	}
	return next
}
