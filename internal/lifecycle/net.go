package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/network"
	"banger/internal/undo"
	"banger/internal/vm"
)

// ports is what is wanted of the host's network: one port for each machine
// that runs or is about to. What was found at the start, and each start and
// stop, change it and apply all of it.
type ports struct {
	// addrs is what Lookup and Reverse read: applying may take long, and names
	// must not wait for it.
	addrs atomic.Pointer[map[vm.ID]netip.Addr]

	mu     sync.Mutex             // held while applying
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
	if m.net.subnet.IsValid() && len(m.net.want) > 0 {
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
		m.serveGuests(subnet)
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
	return func(ctx context.Context) error {
		if v.Spec.Network != network.NAT {
			return nil // whatever the host's network is like
		}
		if v.Ephemeral && m.unplugSoon(v.ID) {
			return nil
		}
		return m.unplug(ctx, v.ID)
	}
}

// serveGuests has names answered in a subnet. Not under m.net.mu: closing what
// answered before waits for answers, which come from here.
func (m *Manager) serveGuests(subnet netip.Prefix) {
	m.d.DNS.ServeGuests(netip.PrefixFrom(network.Gateway(subnet), subnet.Bits()))
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
		// Who had the address before is deleted, or it could not be given away,
		// and about to be unplugged.
		maps.DeleteFunc(m.net.want, func(_ vm.ID, p network.Port) bool { return p.IP == port.IP })
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

// unplug wants no port for a machine any more. It succeeds if there was none:
// what else the host may have too much, KeepNetwork removes. On an error the
// port is still wanted, so that unplugging it may be tried again.
func (m *Manager) unplug(ctx context.Context, id vm.ID) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	port, ok := m.net.want[id]
	if !ok {
		return nil
	}
	delete(m.net.want, id)
	err := m.applyNetwork(ctx)
	if err != nil {
		m.net.want[id] = port
	}
	return err
}

// unplugSoon wants no port for a machine any more, and has the host made so in the
// background: the kernel takes tens of milliseconds for a tap, and for a bridge, and
// whoever leased the machine waits for nothing that anybody could use. What fails
// KeepNetwork tries again, and what a crash leaves the next daemon removes. It does
// nothing and returns false if the daemon is stopping.
func (m *Manager) unplugSoon(id vm.ID) bool {
	m.net.mu.Lock() // what goes on in the background waits for it
	defer m.net.mu.Unlock()
	began := m.background(func() {
		ctx, cancel := m.detached(m.ctx, undo.Limit)
		defer cancel()
		m.net.mu.Lock()
		defer m.net.mu.Unlock()
		if err := m.applyNetwork(ctx); err != nil {
			m.log.Warn("remove a machine's tap", "vm", id, "err", err)
		}
	})
	if _, ok := m.net.want[id]; began && ok {
		delete(m.net.want, id)
		m.net.dirty = true
	}
	return began
}

// applyNetwork makes the host as it is wanted. Preconditions: m.net.mu is held.
func (m *Manager) applyNetwork(ctx context.Context) error {
	w := network.Want{Subnet: m.net.subnet, Ports: slices.Collect(maps.Values(m.net.want))}
	addrs := make(map[vm.ID]netip.Addr, len(w.Ports))
	for _, p := range w.Ports {
		addrs[vm.ID(p.ID)] = p.IP
	}
	m.net.addrs.Store(&addrs)
	m.net.dirty = true
	err := m.d.Network.Apply(ctx, w)
	m.net.dirty = err != nil
	return err
}

// recoverNetwork makes the host as the machines need it that were found
// running, and removes what there is of others. It returns the ids of those
// that run without their tap.
func (m *Manager) recoverNetwork(ctx context.Context, subnet netip.Prefix, facts []fact) (lost []string, err error) {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.net.want = make(map[vm.ID]network.Port)
	m.net.dirty = true
	for _, f := range facts {
		runs := f.running || f.foreign && f.v.State.Up()
		if !runs || f.v.Spec.Network != network.NAT || f.v.GuestIP == "" {
			continue
		}
		ip, err := netip.ParseAddr(f.v.GuestIP)
		if err != nil {
			m.log.Error("address of a machine", "vm", f.v.ID, "err", err)
			continue
		}
		m.net.want[f.v.ID] = network.Port{ID: string(f.v.ID), IP: ip, UID: f.v.UID}
	}
	if len(m.net.want) > 0 {
		m.net.subnet = subnet
		defer m.serveGuests(subnet) // after mu is released, see there
	}
	if lost, err = m.missingTaps(ctx); err != nil {
		return nil, err
	}
	return lost, m.applyNetwork(ctx)
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
	subnet, ports := m.net.subnet, len(m.net.want)
	var err error
	if ports > 0 || m.net.dirty {
		err = m.applyNetwork(ctx)
	}
	text := fmt.Sprint(err)
	news := err != nil && text != m.net.told
	m.net.told = text
	m.net.mu.Unlock()
	if news {
		m.log.Warn("keep the network as it should be", "err", err)
	}
	if ports > 0 {
		m.serveGuests(subnet)
	}
}

// Obstacles tells which firewalls stand in machines' way, of those that can be
// told of until ctx ends.
func (m *Manager) Obstacles(ctx context.Context) []network.Obstacle {
	found, err := m.d.Network.Obstacles(ctx)
	if err != nil {
		m.log.Warn("look for firewalls", "err", err)
	}
	return slices.DeleteFunc(found, func(o network.Obstacle) bool { return o.Err != nil })
}

// watchTaps notes in a machine's record that its tap was deleted: it runs on
// without a network.
func (m *Manager) watchTaps() {
	for {
		err := m.d.Network.Watch(m.ctx, func(id string) {
			m.background(func() { m.tapGone(m.ctx, vm.ID(id)) })
		})
		if m.ctx.Err() != nil {
			return
		}
		m.log.Warn("watch taps", "err", err)
		select {
		case <-time.After(recordAgain):
		case <-m.ctx.Done():
		}
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
// DNS asks, and waits for nothing slow.
func (m *Manager) Lookup(_ context.Context, name string) (netip.Addr, bool) {
	m.mu.Lock()
	var id vm.ID
	for _, l := range m.live {
		if l.vm().Name == name {
			id = l.vm().ID
		}
	}
	m.mu.Unlock()
	a, ok := m.addresses()[id]
	return a, ok
}

// Reverse returns the name of the machine that runs and has an address.
func (m *Manager) Reverse(_ context.Context, a netip.Addr) (name string, ok bool) {
	for id, b := range m.addresses() {
		if l := m.liveOf(id); a == b && l != nil {
			return l.vm().Name, true
		}
	}
	return "", false
}

func (m *Manager) addresses() map[vm.ID]netip.Addr {
	if p := m.net.addrs.Load(); p != nil {
		return *p
	}
	return nil
}
