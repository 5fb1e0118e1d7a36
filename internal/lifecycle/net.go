package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/network"
	"banger/internal/vm"
)

// ports is what is wanted of the host's network: one port for each machine
// that runs or is about to. What was found at the start, and each start and
// stop, change it and apply all of it.
type ports struct {
	mu     sync.Mutex
	want   map[vm.ID]network.Port // guarded by mu
	subnet netip.Prefix           // as it is in the store; zero: not known; guarded by mu
	// dirty: the host may have more or less than is wanted; guarded by mu.
	dirty bool
	told  string // what was last logged of a failure to keep it so; guarded by mu
}

// maxChoices is how many subnets are tried that turn out to be taken.
const maxChoices = 5

// checkNetwork refuses a network that there is not, or that this host cannot
// give.
func (m *Manager) checkNetwork(ctx context.Context, mode string) error {
	switch mode {
	case network.None:
		return nil
	case network.NAT:
		return m.d.Network.Check(ctx)
	}
	return errkind.New(errkind.Usage, "network %q: it takes %q or %q", mode, network.NAT, network.None)
}

// ensureSubnet makes sure that machines can be given addresses.
func (m *Manager) ensureSubnet(ctx context.Context) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if m.net.subnet.IsValid() {
		return nil
	}
	p, err := m.d.Records.Subnet(ctx)
	if err != nil {
		return err
	}
	want := m.d.Config.Subnet.Prefix
	switch {
	case p.IsValid() && (!want.IsValid() || want == p || len(m.net.want) > 0):
		m.net.subnet = p
		return nil
	case want.IsValid():
		return m.setSubnet(ctx, want)
	}
	return m.chooseSubnet(ctx)
}

// chooseSubnet gives machines addresses that nobody on this host has.
// Preconditions: m.net.mu is held.
func (m *Manager) chooseSubnet(ctx context.Context) error {
	p, err := m.d.Network.Choose(ctx)
	if err != nil {
		return err
	}
	return m.setSubnet(ctx, p)
}

func (m *Manager) setSubnet(ctx context.Context, p netip.Prefix) error {
	if err := m.d.Records.SetSubnet(ctx, p); err != nil {
		return err
	}
	m.net.subnet = p
	m.log.Info("subnet", "subnet", p)
	return nil
}

// attachNetwork gives a machine its place on the bridge, and b what its guest
// must know of it.
func (m *Manager) attachNetwork(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		if v.Spec.Network != network.NAT {
			return nil
		}
		port, subnet, err := m.plug(ctx, v.ID)
		if err != nil {
			return err
		}
		mac, err := network.MAC(port.ID)
		if err != nil {
			return err
		}
		b.tap, b.resolvers = m.tapOf(v), m.resolvers(subnet)
		b.nic = wire.NIC{
			MAC:     mac.String(),
			Addrs:   []string{netip.PrefixFrom(port.IP, subnet.Bits()).String()},
			Gateway: network.Gateway(subnet).String(),
		}
		return m.noteTap(v.ID, b.tap)
	}
}

// resolvers are the daemon's own and, for when it is away, the host's.
func (m *Manager) resolvers(subnet netip.Prefix) []string {
	list := []string{network.Gateway(subnet).String()}
	for _, a := range m.d.DNS.Resolvers() {
		list = append(list, a.String())
	}
	return list
}

func (m *Manager) detachNetwork(v vm.VM) func(context.Context) error {
	return func(ctx context.Context) error { return m.unplug(ctx, v.ID) }
}

// plug wants a port for a machine and makes the host so. A subnet that has
// come to collide with a route of the host's is chosen anew while no other
// machine is in it.
func (m *Manager) plug(ctx context.Context, id vm.ID) (network.Port, netip.Prefix, error) {
	if err := m.ensureSubnet(ctx); err != nil {
		return network.Port{}, netip.Prefix{}, err
	}
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	for try := 0; ; try++ {
		port, err := m.portOf(ctx, id)
		if err != nil {
			return port, m.net.subnet, err
		}
		m.net.want[id] = port
		err = m.applyNetwork(ctx)
		if !errors.Is(err, network.ErrCollision) || len(m.net.want) > 1 || try == maxChoices {
			return port, m.net.subnet, err
		}
		if c := m.d.Config.Subnet; c.IsValid() {
			return port, c.Prefix, errkind.New(errkind.Host, "%w; the configuration says subnet = %q: set another, or none", err, c)
		}
		m.log.Warn("choose another subnet", "err", err)
		if err := m.chooseSubnet(ctx); err != nil {
			return port, m.net.subnet, err
		}
	}
}

// portOf reads a machine's address. Preconditions: m.net.mu is held.
func (m *Manager) portOf(ctx context.Context, id vm.ID) (network.Port, error) {
	v, err := m.d.Records.Get(ctx, id)
	if err == nil && v.GuestIP == "" {
		// A record from before there were networks.
		if err = m.d.Records.SetSubnet(ctx, m.net.subnet); err == nil {
			v, err = m.d.Records.Get(ctx, id)
		}
	}
	if err != nil {
		return network.Port{}, err
	}
	ip, err := netip.ParseAddr(v.GuestIP)
	if err != nil {
		return network.Port{}, fmt.Errorf("address of machine %q: %w", v.Name, err)
	}
	return network.Port{ID: string(id), IP: ip, UID: v.UID}, nil
}

// unplug wants no port for a machine any more. It succeeds if there was none.
func (m *Manager) unplug(ctx context.Context, id vm.ID) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if _, ok := m.net.want[id]; !ok && !m.net.dirty {
		return nil
	}
	delete(m.net.want, id)
	return m.applyNetwork(ctx)
}

// applyNetwork makes the host as it is wanted. Preconditions: m.net.mu is held.
func (m *Manager) applyNetwork(ctx context.Context) error {
	w := network.Want{Subnet: m.net.subnet, Ports: slices.Collect(maps.Values(m.net.want))}
	m.net.dirty = true
	if err := m.d.Network.Apply(ctx, w); err != nil {
		return err
	}
	m.net.dirty = false
	if len(w.Ports) > 0 {
		m.d.DNS.ServeGuests(netip.PrefixFrom(network.Gateway(w.Subnet), w.Subnet.Bits()))
	}
	return nil
}

// recoverNetwork makes the host as the machines need it that were found
// running, and removes what there is of others.
func (m *Manager) recoverNetwork(ctx context.Context, facts []fact) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.net.want = make(map[vm.ID]network.Port)
	m.net.dirty = true
	p, err := m.d.Records.Subnet(ctx)
	if err != nil {
		return err
	}
	for _, f := range facts {
		if !f.running || f.v.Spec.Network != network.NAT || f.v.GuestIP == "" {
			continue
		}
		ip, err := netip.ParseAddr(f.v.GuestIP)
		if err != nil {
			return fmt.Errorf("address of machine %q: %w", f.v.Name, err)
		}
		m.net.want[f.v.ID] = network.Port{ID: string(f.v.ID), IP: ip, UID: f.v.UID}
	}
	if len(m.net.want) > 0 {
		m.net.subnet = p
	}
	lost, err := m.missingTaps(ctx)
	if err != nil {
		return err
	}
	if err := m.applyNetwork(ctx); err != nil {
		return err
	}
	for _, id := range lost {
		m.background(func() { m.tapGone(m.ctx, vm.ID(id)) })
	}
	return nil
}

// missingTaps returns the ids of machines that run without their tap: a new one
// does them no good, for their VMM holds the old. Preconditions: m.net.mu is
// held.
func (m *Manager) missingTaps(ctx context.Context) ([]string, error) {
	var ids []string
	for id := range m.net.want {
		ids = append(ids, string(id))
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return m.d.Network.Missing(ctx, ids)
}

// KeepNetwork makes the host as machines need it once more: a default route may
// have changed, or somebody have flushed all rules. The daemon calls it from
// time to time.
func (m *Manager) KeepNetwork(ctx context.Context) {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if len(m.net.want) == 0 && !m.net.dirty {
		return
	}
	err := m.applyNetwork(ctx)
	text := fmt.Sprint(err)
	if err != nil && text != m.net.told {
		m.log.Warn("keep the network as it should be", "err", err)
	}
	m.net.told = text
}

// watchTaps notes in a machine's record that its tap was deleted: it runs on
// without a network.
func (m *Manager) watchTaps() {
	err := m.d.Network.Watch(m.ctx, func(id string) {
		m.background(func() { m.tapGone(m.ctx, vm.ID(id)) })
	})
	if m.ctx.Err() == nil {
		m.log.Warn("watch taps", "err", err)
	}
}

func (m *Manager) tapGone(ctx context.Context, id vm.ID) {
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil || !v.State.Up() || m.liveOf(id) == nil {
		return // deleted, or taken down meanwhile
	}
	m.net.mu.Lock()
	m.net.dirty = true
	m.net.mu.Unlock()
	reason := "its tap was deleted: no network until it is restarted"
	m.log.Warn("a tap was deleted", "vm", id, "name", v.Name)
	if _, err := m.change(ctx, id, vm.Change{To: v.State, Reason: reason, Found: true}); err != nil {
		m.log.Warn("record that a tap was deleted", "vm", id, "err", err)
	}
}

// Lookup returns the address of a machine that runs, by its name. It is what
// DNS asks.
func (m *Manager) Lookup(_ context.Context, name string) (netip.Addr, bool) {
	m.mu.Lock()
	var id vm.ID
	for _, l := range m.live {
		if l.v.Name == name {
			id = l.v.ID
		}
	}
	m.mu.Unlock()
	if id == "" {
		return netip.Addr{}, false
	}
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	p, ok := m.net.want[id]
	return p.IP, ok
}

// Reverse returns the name of the machine that runs and has an address.
func (m *Manager) Reverse(_ context.Context, a netip.Addr) (name string, ok bool) {
	m.net.mu.Lock()
	var id vm.ID
	for _, p := range m.net.want {
		if p.IP == a {
			id = vm.ID(p.ID)
		}
	}
	m.net.mu.Unlock()
	if l := m.liveOf(id); l != nil {
		return l.v.Name, true
	}
	return "", false
}
