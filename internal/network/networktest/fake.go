package networktest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"banger/internal/errkind"
	"banger/internal/network"
)

// fake is one daemon's network on a Host.
type fake struct {
	h    *Host
	tag  string
	taps map[int]string // guarded by h.mu; ids by index, of the taps that are wanted
}

var _ network.Network = (*fake)(nil)

func (*fake) Check(context.Context) error { return nil }

func (n *fake) Obstacles(context.Context) ([]network.Obstacle, error) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	return slices.Clone(n.h.obstacles), nil
}

func (n *fake) Choose(context.Context) (netip.Prefix, error) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	for p := range network.Candidates(n.tag) {
		if n.collision(p) == "" {
			return p, nil
		}
	}
	return netip.Prefix{}, errkind.New(errkind.Host, "no private subnet is free of the host's routes")
}

func (n *fake) Apply(ctx context.Context, w network.Want) error {
	if len(w.Ports) == 0 {
		return n.CleanUp(ctx)
	}
	if err := w.Check(); err != nil {
		return err
	}
	return n.alone(ctx, func() error { return n.apply(w) })
}

func (n *fake) Missing(_ context.Context, ids []string) (missing []string, err error) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	for _, id := range ids {
		if n.h.links[network.TapName(n.tag, id)].Kind != Tap {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

func (n *fake) Traffic(_ context.Context, ids []string) (map[string]network.Traffic, error) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	carried := make(map[string]network.Traffic)
	for _, id := range ids {
		if n.h.links[network.TapName(n.tag, id)].Kind == Tap {
			carried[id] = network.Traffic{OutPackets: n.h.packets[id]}
		}
	}
	return carried, nil
}

func (n *fake) Connected(_ context.Context, addrs []netip.Addr) (map[netip.Addr]time.Duration, error) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	if n.h.follows != nil {
		return nil, n.h.follows
	}
	found := make(map[netip.Addr]time.Duration)
	for _, a := range addrs {
		if quiet, ok := n.h.connected[a]; ok {
			found[a] = quiet
		}
	}
	return found, nil
}

func (n *fake) CleanUp(ctx context.Context) error {
	return n.alone(ctx, func() error {
		n.h.mu.Lock()
		left := n.hasBridge() || n.h.tables[n.table()] == n.tag || len(n.mine()) > 0
		n.h.mu.Unlock()
		if !left {
			return nil
		}
		return n.h.around("undo network", n.cleanUp)
	})
}

// alone runs f while no other network is at work.
func (n *fake) alone(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case n.h.turn <- struct{}{}:
		defer func() { <-n.h.turn }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *fake) apply(w network.Want) error {
	n.h.mu.Lock()
	err := n.refuse(w)
	adds, removes := n.difference(w)
	n.h.mu.Unlock()
	if err != nil {
		return err
	}
	change := func() { n.change(w) }
	switch {
	case adds:
		return n.h.around("network", change)
	case removes:
		return n.h.around("undo network", change)
	}
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	change()
	return nil
}

// refuse returns the error of a want that cannot be made here. Preconditions:
// h.mu is held.
func (n *fake) refuse(w network.Want) error {
	bridge := network.BridgeName(n.tag)
	l, there := n.h.links[bridge]
	if n.h.foreign[bridge] {
		return conflict("link "+bridge, "ip link delete "+bridge)
	}
	for _, p := range w.Ports {
		name := network.TapName(n.tag, p.ID)
		if n.h.foreign[name] {
			return conflict("link "+name, "ip link delete "+name)
		}
	}
	if tag, ok := n.h.tables[n.table()]; ok && tag != n.tag {
		return conflict("table inet "+n.table(), "nft delete table inet "+n.table())
	}
	if route := n.collision(w.Subnet); route != "" && (!there || l.Addr.Masked() != w.Subnet) {
		return fmt.Errorf("%w: %s and %s", network.ErrCollision, w.Subnet, route)
	}
	return nil
}

func conflict(what, hint string) error {
	return errkind.WithHint(errkind.New(errkind.Conflict, "%s was made by somebody else", what), hint)
}

// collision returns the route that p overlaps with, empty if there is none.
// Preconditions: h.mu is held.
func (n *fake) collision(p netip.Prefix) string {
	for _, r := range n.h.routes {
		if r.Overlaps(p) {
			return r.String()
		}
	}
	for _, l := range n.h.links {
		if l.Addr.IsValid() && l.Addr.Overlaps(p) && l.Name != network.BridgeName(n.tag) {
			return l.Addr.Masked().String() + " dev " + l.Name
		}
	}
	return ""
}

// difference tells whether w has ports that the host has not, and the other
// way round. Preconditions: h.mu is held.
func (n *fake) difference(w network.Want) (adds, removes bool) {
	have := map[string]bool{}
	for _, l := range n.mine() {
		have[l.Name] = true
	}
	for _, p := range w.Ports {
		name := network.TapName(n.tag, p.ID)
		adds = adds || !have[name]
		delete(have, name)
	}
	return adds, len(have) > 0
}

// change makes the host as w says. Preconditions: h.mu is held, and nothing is
// refused.
func (n *fake) change(w network.Want) {
	addr := netip.PrefixFrom(network.Gateway(w.Subnet), w.Subnet.Bits())
	bridge := network.BridgeName(n.tag)
	if l, ok := n.h.links[bridge]; !ok {
		n.h.add(Link{Name: bridge, Kind: Bridge, Addr: addr})
	} else {
		l.Addr = addr
		n.h.links[bridge] = l
	}
	n.h.tables[n.table()] = n.tag
	wanted := map[string]network.Port{}
	for _, p := range w.Ports {
		wanted[network.TapName(n.tag, p.ID)] = p
	}
	for _, l := range n.mine() {
		if p, ok := wanted[l.Name]; !ok || p.UID != l.UID {
			delete(n.taps, l.Index)
			n.h.del(l.Name)
		}
	}
	for name, p := range wanted {
		l, ok := n.h.links[name]
		if !ok {
			l = n.h.add(Link{Name: name, Kind: Tap, UID: p.UID})
		}
		l.Master = bridge
		n.h.links[name] = l
		n.taps[l.Index] = p.ID
	}
}

// cleanUp removes what is this daemon's. Preconditions: h.mu is held.
func (n *fake) cleanUp() {
	clear(n.taps)
	for _, l := range n.mine() {
		n.h.del(l.Name)
	}
	if n.hasBridge() {
		n.h.del(network.BridgeName(n.tag))
	}
	if n.h.tables[n.table()] == n.tag {
		delete(n.h.tables, n.table())
	}
}

// mine returns this daemon's taps. Preconditions: h.mu is held.
func (n *fake) mine() (taps []Link) {
	for _, l := range n.h.links {
		if _, ok := network.TapID(n.tag, l.Name); ok && !n.h.foreign[l.Name] {
			taps = append(taps, l)
		}
	}
	return taps
}

// hasBridge reports whether the daemon's bridge is there. Preconditions: h.mu
// is held.
func (n *fake) hasBridge() bool {
	name := network.BridgeName(n.tag)
	_, ok := n.h.links[name]
	return ok && !n.h.foreign[name]
}

func (n *fake) table() string { return "banger_" + n.tag }

func (n *fake) Watch(ctx context.Context, gone func(id string)) error {
	changed := make(chan struct{}, 1)
	n.h.mu.Lock()
	n.h.watches[changed] = true
	n.h.mu.Unlock()
	defer func() {
		n.h.mu.Lock()
		defer n.h.mu.Unlock()
		delete(n.h.watches, changed)
	}()
	for {
		for _, id := range n.gone() {
			gone(id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gone returns the ids of the taps that are wanted and no longer there, each
// once.
func (n *fake) gone() (ids []string) {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	there := map[int]bool{}
	for _, l := range n.h.links {
		there[l.Index] = true
	}
	for _, index := range slices.Sorted(maps.Keys(n.taps)) {
		if !there[index] {
			ids = append(ids, n.taps[index])
			delete(n.taps, index)
		}
	}
	return ids
}
