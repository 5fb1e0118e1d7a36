package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"banger/internal/guest/wire"
)

// netClass is where the kernel shows its interfaces.
const netClass = "/sys/class/net"

var errNoLink = errors.New("no interface has this address")

// setNetwork brings up the loopback interface and the machine's own, with the
// addresses and routes that the daemon chose. It may be called twice.
func setNetwork(nics []wire.NIC) error { return configure(netClass, nics, false) }

// SetNetwork implements the method of [System].
func (guestSystem) SetNetwork(nics []wire.NIC) error { return configure(netClass, nics, true) }

// configure makes interfaces as nics say. Where the guest is restored, these
// have the hardware addresses of their template still, and get their machine's.
func configure(class string, nics []wire.NIC, restored bool) error {
	s, err := openIfSocket()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.setUp("lo", true); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if len(nics) == 0 {
		return nil
	}
	links, err := s.links(class)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if restored {
		if err := s.setMACs(devices(class, links), nics); err != nil {
			return err
		}
	}
	for _, n := range nics {
		if err := s.setNIC(links, n); err != nil {
			return err
		}
	}
	return nil
}

// A link is an interface of Ethernet.
type link struct {
	name  string
	index int
	mac   mac
}

type mac [6]byte

func parseMAC(text string) (mac, error) {
	addr, err := net.ParseMAC(text)
	if err != nil {
		return mac{}, err
	}
	if len(addr) != len(mac{}) {
		return mac{}, fmt.Errorf("address %s is not of Ethernet", text)
	}
	return mac(addr), nil
}

// links returns the interfaces of Ethernet, in the order in which the kernel
// found them. What class shows and is none, or none any more, is left out.
func (s ifSocket) links(class string) ([]*link, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, err
	}
	var out []*link
	for _, e := range entries {
		l, err := s.link(e.Name())
		if err != nil {
			return nil, err
		}
		if l != nil {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *link) int { return a.index - b.index })
	return out, nil
}

// devices returns those interfaces behind which stands a device: what the
// kernel makes itself (bridges, tunnels) has none.
func devices(class string, links []*link) []*link {
	var out []*link
	for _, l := range links {
		if _, err := os.Lstat(filepath.Join(class, l.name, "device")); err == nil {
			out = append(out, l)
		}
	}
	return out
}

// setMACs gives interfaces the hardware addresses of their machine. They are
// found by their order: what they have so far is what the template's had.
func (s ifSocket) setMACs(links []*link, nics []wire.NIC) error {
	if len(links) < len(nics) {
		return fmt.Errorf("find %d interfaces: there are %d", len(nics), len(links))
	}
	for i, n := range nics {
		if err := s.setMAC(links[i], n.MAC); err != nil {
			return err
		}
	}
	return nil
}

// setMAC gives an interface its hardware address while it is down: not every
// device takes one otherwise.
func (s ifSocket) setMAC(l *link, text string) error {
	addr, err := parseMAC(text)
	if err != nil || addr == l.mac {
		return err
	}
	if err := s.setUp(l.name, false); err != nil {
		return fmt.Errorf("take down %s: %w", l.name, err)
	}
	if err := s.setHardware(l.name, addr); err != nil {
		return fmt.Errorf("set address %s of %s: %w", text, l.name, err)
	}
	l.mac = addr
	return nil
}

func (s ifSocket) setNIC(links []*link, n wire.NIC) error {
	l, err := linkByMAC(links, n.MAC)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", n.MAC, err)
	}
	if err := s.addAddrs(l, n.Addrs); err != nil {
		return err
	}
	if err := s.setUp(l.name, true); err != nil {
		return fmt.Errorf("bring up %s: %w", l.name, err)
	}
	if n.Gateway == "" {
		return nil
	}
	gw, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return fmt.Errorf("gateway of %s: %w", n.MAC, err)
	}
	if err := s.setGateway(l, gw); err != nil {
		return fmt.Errorf("add route by %s to %s: %w", n.Gateway, l.name, err)
	}
	return nil
}

func linkByMAC(links []*link, text string) (*link, error) {
	addr, err := parseMAC(text)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(links, func(l *link) bool { return l.mac == addr })
	if i < 0 {
		return nil, errNoLink
	}
	return links[i], nil
}

// addAddrs gives an interface its addresses, those of IPv4 in the place of what
// it had. The routes that come with them are made once if it is down still.
func (s ifSocket) addAddrs(l *link, addrs []string) error {
	name, of4 := l.name, 0
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return fmt.Errorf("address of %s: %w", l.name, err)
		}
		if p.Addr().Is4() {
			if of4 > 0 {
				name = fmt.Sprintf("%s:%d", l.name, of4) // it has a label for each
			}
			of4++
			err = s.setAddr4(name, p)
		} else {
			err = addAddr6(l, p)
		}
		if err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, l.name, err)
		}
	}
	return nil
}
