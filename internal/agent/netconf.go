package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// setNetwork brings up the loopback interface and the machine's own, with the
// addresses and routes that the daemon chose. It may be called twice.
func setNetwork(nics []wire.NIC) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if len(nics) == 0 {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, n := range nics {
		if err := setNIC(links, n); err != nil {
			return err
		}
	}
	return nil
}

// loopbackUp brings up the loopback interface. The old ioctls do it in a
// twentieth of the time of a first netlink exchange, which counts in software
// emulation, where code that runs for the first time is dear.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func setNIC(links []netlink.Link, n wire.NIC) error {
	link := linkByMAC(links, n.MAC)
	if link == nil {
		return fmt.Errorf("find interface %s: %w", n.MAC, errNoLink)
	}
	name := link.Attrs().Name
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	for _, a := range n.Addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
		// The daemon chose the address and made sure that it is free:
		// nothing waits for the kernel to ask around (IPv6).
		if addr.IP.To4() == nil {
			addr.Flags |= unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, name, err)
		}
	}
	if n.Gateway == "" {
		return nil
	}
	route, err := defaultRoute(link.Attrs().Index, n)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add route by %s to %s: %w", n.Gateway, name, err)
	}
	return nil
}

var errNoLink = errors.New("no interface has this address")

// defaultRoute is the route to everywhere. Its destination is spelled out:
// netlink tells IPv4 from IPv6 by it.
func defaultRoute(index int, n wire.NIC) (*netlink.Route, error) {
	gw, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return nil, fmt.Errorf("gateway of %s: %w", n.MAC, err)
	}
	bits := 8 * net.IPv4len
	zero := net.IPv4zero.To4()
	if gw.Is6() {
		bits, zero = 8*net.IPv6len, net.IPv6zero
	}
	return &netlink.Route{
		LinkIndex: index,
		Gw:        net.IP(gw.AsSlice()),
		Dst:       &net.IPNet{IP: zero, Mask: net.CIDRMask(0, bits)},
	}, nil
}

func linkByMAC(links []netlink.Link, mac string) netlink.Link {
	for _, l := range links {
		if strings.EqualFold(l.Attrs().HardwareAddr.String(), mac) {
			return l
		}
	}
	return nil
}
