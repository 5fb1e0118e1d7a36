package linux

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/network"
)

// Choose returns a subnet that is free; see [network.Network].
func (n *Network) Choose(ctx context.Context) (subnet netip.Prefix, err error) {
	err = n.alone(ctx, func(c *conn) error {
		links, err := c.links()
		if err != nil {
			return err
		}
		routes, err := c.routes()
		if err != nil {
			return err
		}
		for subnet = range network.Candidates(n.tag) {
			if n.collision(links, routes, subnet) == "" {
				return nil
			}
		}
		return errkind.WithHint(errkind.New(errkind.Host,
			"no private subnet is free for machines: routes of the host cover all"), "ip -4 route show table all")
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	return subnet, nil
}

// routes returns the host's IPv4 routes, of all tables.
func (c *conn) routes() (routes []netlink.Route, err error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	err = dumped(func() (err error) {
		routes, err = c.RouteListFiltered(netlink.FAMILY_V4, all, netlink.RT_FILTER_TABLE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

// collide returns the error of a subnet that cannot be had. Machines that run
// keep theirs: it looks only where the bridge does not have it yet.
func (n *Network) collide(c *conn, links map[string]netlink.Link, routes []netlink.Route, subnet netip.Prefix) error {
	if l := links[n.bridge]; l != nil {
		addrs, err := c.addrs(l)
		if err != nil {
			return err
		}
		want := netip.PrefixFrom(network.Gateway(subnet), subnet.Bits()).String()
		if slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want }) {
			return nil
		}
	}
	if route := n.collision(links, routes, subnet); route != "" {
		return fmt.Errorf("%w: %s and %s", network.ErrCollision, subnet, route)
	}
	return nil
}

// collision returns the text of a route that overlaps with subnet, empty if
// there is none. A host's own address counts, too, if nothing else of its
// network does: guests could not reach one another by it.
func (n *Network) collision(links map[string]netlink.Link, routes []netlink.Route, subnet netip.Prefix) string {
	own := -1
	if l := links[n.bridge]; l != nil {
		own = l.Attrs().Index
	}
	for _, r := range routes {
		dst := prefix(r.Dst)
		switch r.Type {
		case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
			continue
		}
		if r.LinkIndex != own && !everything(dst) && dst.Overlaps(subnet) {
			return text(r, dst, links)
		}
	}
	return ""
}

// prefix is the network that a route leads to.
func prefix(dst *net.IPNet) netip.Prefix {
	if dst == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(dst.IP)
	bits, _ := dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// everything reports whether a route leads to the whole internet: the default
// route, or one of the two halves by which VPNs override that.
func everything(dst netip.Prefix) bool { return dst.Bits() <= 1 }

// text is a route as ip(8) has it, as far as it helps to find it.
func text(r netlink.Route, dst netip.Prefix, links map[string]netlink.Link) string {
	s := dst.String()
	if r.Gw != nil {
		s += " via " + r.Gw.String()
	}
	if name := linkName(links, r.LinkIndex); name != "" {
		s += " dev " + name
	}
	return s
}

func linkName(links map[string]netlink.Link, index int) string {
	for name, l := range links {
		if l.Attrs().Index == index {
			return name
		}
	}
	return ""
}

// uplinks returns the names of the links by which the host reaches the
// internet, sorted.
func uplinks(routes []netlink.Route, links map[string]netlink.Link) (names []string) {
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST || !everything(prefix(r.Dst)) {
			continue
		}
		indexes := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
		for _, i := range indexes {
			if name := linkName(links, i); name != "" && name != "lo" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
