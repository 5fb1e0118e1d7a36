package linux

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/network"
)

// maxAlias is what an alias may have in bytes (IFALIASZ less a NUL; if.h).
const maxAlias = 255

// alias is what marks a bridge as the daemon's with a root.
func alias(root string) string {
	a := "banger " + root
	return a[:min(len(a), maxAlias)]
}

// bridgeMAC is the address of a daemon's bridge: locally administered, no
// machine's (see [network.MAC]), and the same after every start, so that guests
// need not ask again for their gateway.
func bridgeMAC(tag string) net.HardwareAddr {
	b, err := hex.DecodeString(tag)
	if err != nil || len(b) != 3 {
		panic("internal error: tag " + tag)
	}
	return append(net.HardwareAddr{0x02, 0xbb, 0x00}, b...)
}

// dumped calls f, which dumps something, again while others change it.
func dumped(f func() error) error {
	for range 20 {
		if err := f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return netlink.ErrDumpInterrupted
}

func (c *conn) links() (map[string]netlink.Link, error) { return linksOf(c.Handle) }

// linksOf returns the host's links by name.
func linksOf(h *netlink.Handle) (map[string]netlink.Link, error) {
	var list []netlink.Link
	if err := dumped(func() (err error) { list, err = h.LinkList(); return err }); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make(map[string]netlink.Link, len(list))
	for _, l := range list {
		links[l.Attrs().Name] = l
	}
	return links, nil
}

// refuse returns an error if something of somebody else's has a name that w
// needs.
func (n *Network) refuse(links map[string]netlink.Link, t *tables, w network.Want) error {
	if l := links[n.bridge]; l != nil && !n.isBridge(l) {
		return foreign("link "+n.bridge, "ip link delete "+n.bridge)
	}
	for _, p := range w.Ports {
		name := network.TapName(n.tag, p.ID)
		if l := links[name]; l != nil && !isTap(l) {
			return foreign("link "+name, "ip link delete "+name)
		}
	}
	for _, f := range t.foreign {
		return foreign("table "+f, "nft delete table "+f)
	}
	return nil
}

func foreign(what, hint string) error {
	return errkind.WithHint(errkind.New(errkind.Conflict, "%s was made by somebody else", what), hint)
}

// isBridge reports whether l is this daemon's bridge. An alias cannot be given
// to a link that is being made: a bridge of our address without one is what a
// crash left.
func (n *Network) isBridge(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == "bridge" && (a.Alias == n.alias || a.Alias == "" && a.HardwareAddr.String() == n.mac.String())
}

func isTap(l netlink.Link) bool {
	t, ok := l.(*netlink.Tuntap)
	return ok && t.Mode == netlink.TUNTAP_MODE_TAP
}

// makeLinks makes bridge and taps as w says. Preconditions: n.refuse let w
// pass.
func (n *Network) makeLinks(c *conn, links map[string]netlink.Link, w network.Want) error {
	br, err := n.makeBridge(c, links[n.bridge], w.Subnet)
	if err != nil {
		return err
	}
	wanted := make(map[string]network.Port, len(w.Ports))
	for _, p := range w.Ports {
		wanted[network.TapName(n.tag, p.ID)] = p
	}
	for name, l := range links {
		id, ours := network.TapID(n.tag, name)
		if !ours || !isTap(l) {
			continue
		}
		if p, ok := wanted[name]; ok && fits(l, p.UID) {
			continue
		}
		if err := n.removeLink(c, l); err != nil {
			return err
		}
		n.log.Debug("tap removed", "vm", id, "tap", name)
		delete(links, name)
	}
	for name, p := range wanted {
		if err := n.makeTap(c, links[name], br, name, p); err != nil {
			return err
		}
	}
	return nil
}

// makeBridge makes the daemon's bridge, or what is missing of l, which may be
// nil.
func (n *Network) makeBridge(c *conn, l netlink.Link, subnet netip.Prefix) (netlink.Link, error) {
	if l == nil {
		a := netlink.NewLinkAttrs()
		a.Name, a.HardwareAddr = n.bridge, n.mac
		// Without snooping, guests cannot fill the bridge's table of groups.
		// Spanning tree is off unless it is switched on, and without it a port
		// forwards at once, whatever the bridge's forward delay
		// (br_make_forwarding in net/bridge/br_stp_if.c).
		snooping := false
		if err := c.LinkAdd(&netlink.Bridge{LinkAttrs: a, MulticastSnooping: &snooping}); err != nil {
			return nil, fmt.Errorf("make bridge %s: %w", n.bridge, hostLacks(err, "bridge"))
		}
		var err error
		if l, err = c.LinkByName(n.bridge); err != nil {
			return nil, fmt.Errorf("find bridge %s: %w", n.bridge, err)
		}
		n.log.Debug("bridge made", "bridge", n.bridge, "subnet", subnet)
	}
	if err := n.finishBridge(c, l, subnet); err != nil {
		return nil, fmt.Errorf("set up bridge %s: %w", n.bridge, err)
	}
	return l, nil
}

func (n *Network) finishBridge(c *conn, l netlink.Link, subnet netip.Prefix) error {
	a := l.Attrs()
	if a.Alias != n.alias {
		if err := c.LinkSetAlias(l, n.alias); err != nil {
			return fmt.Errorf("alias: %w", err)
		}
	}
	if a.HardwareAddr.String() != n.mac.String() {
		if err := c.LinkSetHardwareAddr(l, n.mac); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	if err := withoutIPv6(n.bridge); err != nil {
		return err
	}
	if err := c.setAddr(l, netip.PrefixFrom(network.Gateway(subnet), subnet.Bits())); err != nil {
		return err
	}
	if a.Flags&net.FlagUp == 0 {
		return c.LinkSetUp(l)
	}
	return nil
}

// setAddr gives l one IPv4 address, and takes all others away.
func (c *conn) setAddr(l netlink.Link, p netip.Prefix) error {
	have, err := c.addrs(l)
	if err != nil {
		return err
	}
	there := false
	for _, a := range have {
		if a.IPNet.String() == p.String() {
			there = true
			continue
		}
		if err := c.AddrDel(l, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if there {
		return nil
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
	if err := c.AddrAdd(l, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

func (c *conn) addrs(l netlink.Link) (addrs []netlink.Addr, err error) {
	err = dumped(func() (err error) { addrs, err = c.AddrList(l, netlink.FAMILY_V4); return err })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// removeLinks removes the daemon's taps and its bridge.
func (n *Network) removeLinks(c *conn, links map[string]netlink.Link) error {
	for name, l := range links {
		if _, ok := network.TapID(n.tag, name); ok && isTap(l) {
			if err := n.removeLink(c, l); err != nil {
				return err
			}
		}
	}
	if l := links[n.bridge]; l != nil && n.isBridge(l) {
		return n.removeLink(c, l)
	}
	return nil
}

// removeLink removes a link of ours; Watch does not tell of it.
func (n *Network) removeLink(c *conn, l netlink.Link) error {
	n.mu.Lock()
	delete(n.taps, l.Attrs().Index)
	n.mu.Unlock()
	if err := c.LinkDel(l); err != nil && !gone(err) {
		return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// gone reports whether an error says that a link is not there.
func gone(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.As(err, &nf) || errors.Is(err, os.ErrNotExist)
}
