package networktest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/network"
)

// wantConflict checks that Apply refuses with a hint, and that CleanUp is no
// less careful.
func (b *bench) wantConflict(t *testing.T, w network.Want, hint string) {
	t.Helper()
	links, tables := b.Links(), b.Tables()
	n := b.Network(tag)
	err := n.Apply(t.Context(), w)
	if errkind.Of(err) != errkind.Conflict || !slices.Contains(errkind.Hints(err), hint) {
		t.Errorf("Apply = %v, hints %q, want a conflict with %q", err, errkind.Hints(err), hint)
	}
	b.cleanUp(t, n)
	if d := diff(links, b.Links()); d != "" {
		t.Errorf("links were changed (-before +after):\n%s", d)
	}
	if d := diff(tables, b.Tables()); d != "" {
		t.Errorf("tables were changed (-before +after):\n%s", d)
	}
}

func testForeignBridge(t *testing.T, b *bench) {
	br := network.BridgeName(tag)
	b.AddLink(br)
	b.wantConflict(t, want(1), "ip link delete "+br)
	b.DelLink(br)
	b.apply(t, b.Network(tag), want(1))
}

func testForeignTap(t *testing.T, b *bench) {
	tap, unwanted := network.TapName(tag, id(1)), network.TapName(tag, id(9))
	b.AddLink(tap)
	b.AddLink(unwanted)
	b.wantConflict(t, want(2, 1), "ip link delete "+tap)
	b.DelLink(tap)
	b.apply(t, b.Network(tag), want(2, 1))
	b.wantLinks(t, append(made(tag, want(2, 1)), Link{Name: unwanted, Kind: Bridge}))
}

func testForeignTable(t *testing.T, b *bench) {
	b.AddTable("banger_" + tag)
	b.wantConflict(t, want(1), "nft delete table inet banger_"+tag)
}

func testChoose(t *testing.T, b *bench) {
	n := b.Network(tag)
	first, err := n.Choose(t.Context())
	if err != nil {
		t.Fatalf("Choose = %v", err)
	}
	if again, err := b.Network(tag).Choose(t.Context()); err != nil || again != first {
		t.Errorf("Choose = %v, then %v, %v", first, again, err)
	}
	b.wantNothing(t)
	b.AddRoute(netip.MustParsePrefix(first.Addr().Next().String() + "/32")) // a part of it
	second, err := n.Choose(t.Context())
	if err != nil || second.Overlaps(first) {
		t.Fatalf("Choose = %v, %v, which overlaps with %v", second, err, first)
	}
	b.AddRoute(netip.MustParsePrefix("10.0.0.0/8"))
	third, err := n.Choose(t.Context())
	if err != nil || third.Overlaps(netip.MustParsePrefix("10.0.0.0/8")) {
		t.Fatalf("Choose = %v, %v", third, err)
	}
	w := network.Want{Subnet: third, Ports: []network.Port{{ID: id(1), IP: network.Gateway(third).Next(), UID: 4001}}}
	b.apply(t, n, w)
	if again, err := n.Choose(t.Context()); err != nil || again != third {
		t.Errorf("Choose beside its own bridge = %v, %v, want %v", again, err, third)
	}
	for _, r := range []string{"172.16.0.0/12", "192.168.0.0/16"} {
		b.AddRoute(netip.MustParsePrefix(r))
	}
	if p, err := n.Choose(t.Context()); errkind.Of(err) != errkind.Host {
		t.Errorf("Choose where all is taken = %v, %v", p, err)
	}
}

func testCollision(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.AddRoute(netip.MustParsePrefix("10.64.10.0/24")) // within the subnet
	err := n.Apply(t.Context(), want(1))
	if !errors.Is(err, network.ErrCollision) || !strings.Contains(err.Error(), "10.64.10.0/24") {
		t.Errorf("Apply = %v, want a collision with the route", err)
	}
	b.wantNothing(t)

	w := want(1)
	w.Subnet = netip.MustParsePrefix("10.64.8.0/23")
	b.apply(t, n, w)
	b.AddRoute(netip.MustParsePrefix("10.64.9.0/24")) // the machines that run are not cut off for it
	b.apply(t, n, w)
	b.wantLinks(t, made(tag, w))
}

func testWrongWant(t *testing.T, b *bench) {
	for name, edit := range map[string]func(*network.Want){
		"no subnet": func(w *network.Want) { w.Subnet = netip.Prefix{} },
		"outside":   func(w *network.Want) { w.Ports[0].IP = netip.MustParseAddr("10.1.1.1") },
		"twice":     func(w *network.Want) { w.Ports[0] = w.Ports[1] },
		"odd id":    func(w *network.Want) { w.Ports[0].ID = "../../../" },
	} {
		w := want(1, 2)
		edit(&w)
		if err := b.Network(tag).Apply(t.Context(), w); err == nil {
			t.Errorf("%s: Apply succeeded", name)
		}
		b.wantNothing(t)
	}
}
