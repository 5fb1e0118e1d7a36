package networktest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger/internal/errkind"
	"banger/internal/network"
)

// limit is how long something may take that takes milliseconds.
const limit = 20 * time.Second

// Harness is a host of its own and the networks on it.
type Harness struct {
	// Network returns the network of the daemon with a tag, as one that has
	// just started has it.
	Network func(tag string) network.Network
	// Links returns the links, those apart that are always there, sorted by
	// name.
	Links func() []Link
	// Tables returns the names of the tables of rules, each once, sorted.
	Tables func() []string
	// AddLink, DelLink, AddTable and AddRoute are what somebody else does.
	// AddLink makes a bridge, AddTable a table whose name is that
	// of a daemon's.
	AddLink, DelLink, AddTable func(name string)
	AddRoute                   func(netip.Prefix)
}

// Tags of the suite's daemons.
const (
	tag   = "abc123"
	other = "abc124"
)

// Run checks that networks keep what [network.Network] promises.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"Apply", testApply},
		{"Twice", testTwice},
		{"AddAndRemove", testAddAndRemove},
		{"OtherOwner", testOtherOwner},
		{"OtherSubnet", testOtherSubnet},
		{"NothingThere", testNothingThere},
		{"NothingWanted", testNothingWanted},
		{"NextDaemon", testNextDaemon},
		{"Missing", testMissing},
		{"Traffic", testTraffic},
		{"Connected", testConnected},
		{"TwoDaemons", testTwoDaemons},
		{"ForeignBridge", testForeignBridge},
		{"ForeignTap", testForeignTap},
		{"ForeignTable", testForeignTable},
		{"Choose", testChoose},
		{"Collision", testCollision},
		{"WrongWant", testWrongWant},
		{"Concurrent", testConcurrent},
		{"Cancelled", testCancelled},
		{"Watch", testWatch},
		{"WatchOwnRemovals", testWatchOwnRemovals},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, &bench{newHarness(t)}) })
	}
}

// bench is a harness with short ways to say what tests do. Its methods fail
// the test.
type bench struct{ Harness }

var subnet = netip.MustParsePrefix("10.64.8.0/22")

// want returns a want with a port for each of the numbers.
func want(numbers ...int) network.Want {
	w := network.Want{Subnet: subnet}
	for _, n := range numbers {
		ip := subnet.Addr().As4()
		ip[3] = byte(n + 10)
		w.Ports = append(w.Ports, network.Port{ID: id(n), IP: netip.AddrFrom4(ip), UID: uint32(4000 + n)})
	}
	return w
}

func id(n int) string { return fmt.Sprintf("%08x", n) }

func (b *bench) apply(t *testing.T, n network.Network, w network.Want) {
	t.Helper()
	if err := n.Apply(t.Context(), w); err != nil {
		t.Fatalf("Apply = %v", err)
	}
}

func (b *bench) cleanUp(t *testing.T, n network.Network) {
	t.Helper()
	if err := n.CleanUp(t.Context()); err != nil {
		t.Fatalf("CleanUp = %v", err)
	}
}

// diff compares links or names; none is as good as an empty list.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty())
}

// links returns the links without their indexes.
func (b *bench) links() []Link {
	links := b.Links()
	for i := range links {
		links[i].Index = 0
	}
	return links
}

func (b *bench) index(t *testing.T, name string) int {
	t.Helper()
	for _, l := range b.Links() {
		if l.Name == name {
			return l.Index
		}
	}
	t.Fatalf("there is no link %s", name)
	return 0
}

// made returns the links that w makes for a daemon.
func made(tag string, w network.Want) []Link {
	br := network.BridgeName(tag)
	links := []Link{{Name: br, Kind: Bridge, Addr: netip.PrefixFrom(network.Gateway(w.Subnet), w.Subnet.Bits())}}
	for _, p := range w.Ports {
		links = append(links, Link{Name: network.TapName(tag, p.ID), Kind: Tap, Master: br, UID: p.UID})
	}
	slices.SortFunc(links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	return links
}

func (b *bench) wantLinks(t *testing.T, links []Link) {
	t.Helper()
	slices.SortFunc(links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	if d := diff(links, b.links()); d != "" {
		t.Errorf("links (-want +got):\n%s", d)
	}
}

func (b *bench) wantTables(t *testing.T, tags ...string) {
	t.Helper()
	names := []string{}
	for _, tag := range tags {
		names = append(names, "banger_"+tag)
	}
	if d := diff(names, b.Tables()); d != "" {
		t.Errorf("tables (-want +got):\n%s", d)
	}
}

func (b *bench) wantNothing(t *testing.T) {
	t.Helper()
	b.wantLinks(t, []Link{})
	b.wantTables(t)
}

func testApply(t *testing.T, b *bench) {
	n := b.Network(tag)
	if err := n.Check(t.Context()); err != nil {
		t.Fatalf("Check = %v", err)
	}
	b.wantNothing(t) // Check has made nothing
	if o, err := n.Obstacles(t.Context()); err != nil || len(o) != 0 {
		t.Errorf("Obstacles = %v, %v", o, err)
	}
	for range 2 { // what is gone can be made again
		b.apply(t, n, want(1, 2))
		b.wantLinks(t, made(tag, want(1, 2)))
		b.wantTables(t, tag)
		b.cleanUp(t, n)
		b.wantNothing(t)
	}
}

func testTwice(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1, 2))
	before := b.Links()
	b.apply(t, n, want(2, 1))
	if d := diff(before, b.Links()); d != "" {
		t.Errorf("the second Apply made links anew (-before +after):\n%s", d)
	}
	for range 2 {
		b.cleanUp(t, n)
		b.wantNothing(t)
	}
}

func testAddAndRemove(t *testing.T, b *bench) {
	n := b.Network(tag)
	for _, w := range []network.Want{want(1), want(1, 2, 3), want(3, 1), want(4), want(1, 2, 3, 4, 5)} {
		b.apply(t, n, w)
		b.wantLinks(t, made(tag, w))
		b.wantTables(t, tag)
	}
	bridge := b.index(t, network.BridgeName(tag))
	five := b.index(t, network.TapName(tag, id(5)))
	b.apply(t, n, want(5))
	if b.index(t, network.BridgeName(tag)) != bridge || b.index(t, network.TapName(tag, id(5))) != five {
		t.Error("removing some made what stays anew")
	}
}

// A tap of another user is of no use to the machine, which may be another
// user's now.
func testOtherOwner(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1, 2))
	w := want(1, 2)
	w.Ports[0].UID = 4711
	two := b.index(t, network.TapName(tag, id(2)))
	b.apply(t, n, w)
	b.wantLinks(t, made(tag, w))
	if b.index(t, network.TapName(tag, id(2))) != two {
		t.Error("the other tap was made anew")
	}
}

func testOtherSubnet(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1))
	w := want(1)
	w.Subnet = netip.MustParsePrefix("10.77.0.0/24")
	w.Ports[0].IP = netip.MustParseAddr("10.77.0.9")
	b.apply(t, n, w)
	b.wantLinks(t, made(tag, w))
}

func testNothingThere(t *testing.T, b *bench) {
	b.cleanUp(t, b.Network(tag))
	b.wantNothing(t)
}

func testNothingWanted(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, network.Want{})
	b.wantNothing(t)
	b.apply(t, n, want(1))
	b.apply(t, n, want())
	b.wantNothing(t)
}

// The next daemon knows nothing of what an earlier one made but its tag.
func testNextDaemon(t *testing.T, b *bench) {
	b.apply(t, b.Network(tag), want(1, 2, 3))
	one := b.index(t, network.TapName(tag, id(1)))
	b.apply(t, b.Network(tag), want(1, 4))
	b.wantLinks(t, made(tag, want(1, 4)))
	if b.index(t, network.TapName(tag, id(1))) != one {
		t.Error("a tap that a VMM may hold was made anew")
	}
	b.cleanUp(t, b.Network(tag))
	b.wantNothing(t)

	// One that died in the middle left a part.
	b.apply(t, b.Network(tag), want(1, 2))
	b.DelLink(network.BridgeName(tag))
	b.cleanUp(t, b.Network(tag))
	b.wantNothing(t)
	b.apply(t, b.Network(tag), want(1, 2))
	b.DelLink(network.BridgeName(tag))
	b.DelLink(network.TapName(tag, id(1)))
	b.apply(t, b.Network(tag), want(1, 2))
	b.wantLinks(t, made(tag, want(1, 2)))
}

// What is missing of a daemon's taps, the next one is told.
func testMissing(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1, 2))
	defer b.cleanUp(t, n)
	b.DelLink(network.TapName(tag, id(2)))
	got, err := b.Network(tag).Missing(t.Context(), []string{id(1), id(2), id(3)})
	if d := diff([]string{id(2), id(3)}, got); err != nil || d != "" {
		t.Errorf("Missing: %v (-want +got):\n%s", err, d)
	}
}

// Nobody sends anything here; that what is sent is counted is for tests with
// guests.
func testTraffic(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1))
	defer b.cleanUp(t, n)
	got, err := b.Network(tag).Traffic(t.Context(), []string{id(1), id(2)})
	if _, there := got[id(1)]; err != nil || !there || len(got) != 1 {
		t.Errorf("Traffic = %v, %v", got, err)
	}
}

// Nobody is connected here. A host may follow no connections, and says so.
func testConnected(t *testing.T, b *bench) {
	n := b.Network(tag)
	w := want(1)
	b.apply(t, n, w)
	defer b.cleanUp(t, n)
	got, err := n.Connected(t.Context(), []netip.Addr{w.Ports[0].IP})
	if err != nil && errkind.Of(err) != errkind.Host || len(got) != 0 {
		t.Errorf("Connected = %v, %v", got, err)
	}
}

func testTwoDaemons(t *testing.T, b *bench) {
	n, o := b.Network(tag), b.Network(other)
	ow := want(1, 7)
	ow.Subnet = netip.MustParsePrefix("10.70.0.0/24")
	ow.Ports[0].IP, ow.Ports[1].IP = netip.MustParseAddr("10.70.0.2"), netip.MustParseAddr("10.70.0.3")
	b.apply(t, n, want(1, 2))
	b.apply(t, o, ow)
	b.wantLinks(t, append(made(tag, want(1, 2)), made(other, ow)...))
	b.wantTables(t, tag, other)
	bridge := b.index(t, network.BridgeName(other))
	b.apply(t, n, want(2))
	b.cleanUp(t, n)
	b.wantLinks(t, made(other, ow))
	b.wantTables(t, other)
	if b.index(t, network.BridgeName(other)) != bridge {
		t.Error("the other daemon's bridge was made anew")
	}
	if err := n.Apply(t.Context(), network.Want{Subnet: ow.Subnet, Ports: ow.Ports[:1]}); !errors.Is(err, network.ErrCollision) {
		t.Errorf("Apply on the other daemon's subnet = %v", err)
	}
	b.wantLinks(t, made(other, ow))
}

func testConcurrent(t *testing.T, b *bench) {
	n, again := b.Network(tag), b.Network(tag)
	var wg sync.WaitGroup
	for i := range 4 {
		for _, n := range []network.Network{n, again} {
			wg.Go(func() {
				if err := n.Apply(t.Context(), want(1, 2+i)); err != nil {
					t.Errorf("Apply = %v", err)
				}
			})
		}
		wg.Go(func() {
			o := b.Network(fmt.Sprintf("00000%d", i))
			w := network.Want{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 80, byte(i), 0}), 24)}
			w.Ports = []network.Port{{ID: id(1), IP: netip.AddrFrom4([4]byte{10, 80, byte(i), 5}), UID: 5000}}
			if err := errors.Join(o.Apply(t.Context(), w), o.CleanUp(t.Context())); err != nil {
				t.Errorf("another daemon: %v", err)
			}
		})
	}
	wg.Wait()
	b.apply(t, n, want(1))
	b.wantLinks(t, made(tag, want(1)))
	b.wantTables(t, tag)
}

func testCancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Network(tag).Apply(ctx, want(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply = %v, want that it was cancelled", err)
	}
	b.wantNothing(t)
}
