package dns

import (
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	// resolvedConf holds the resolvers behind systemd-resolved's stub
	// (systemd-resolved.service(8)).
	resolvedConf = "/run/systemd/resolve/resolv.conf"
	// maxUpstreams is how many resolvers of a file count (resolv.conf(5)).
	maxUpstreams = 3
	// maxResolvers is how many a guest is told of, beside the bridge.
	maxResolvers = 2
)

// Resolvers returns up to two addresses at which a guest can reach a resolver
// without this server: those in the file at path (empty: /etc/resolv.conf)
// that are IPv4, as guests' network is, and lie beyond the host. Where the file
// names systemd-resolved's stub, what stands behind that is read instead. A
// file that is not there, or names none, gives none.
func Resolvers(path string) []netip.Addr {
	if path == "" {
		path = resolvConf
	}
	return resolversOf(path, resolvedConf)
}

func resolversOf(path, resolved string) []netip.Addr {
	addrs := nameservers(path)
	if slices.ContainsFunc(addrs, stub) {
		addrs = nameservers(resolved)
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return !a.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
	})
	return addrs[:min(len(addrs), maxResolvers)]
}

// stub reports whether systemd-resolved listens on an address.
func stub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// nameservers reads the resolvers of a file, without doubles; what is no
// address is left out.
func nameservers(path string) (addrs []netip.Addr) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	for _, text := range c.Servers {
		a, err := netip.ParseAddr(text)
		if err == nil && !slices.Contains(addrs, a.Unmap()) {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// upstreams are the host's resolvers, as its file says now.
type upstreams struct {
	path string
	port uint16 // 53, but in tests

	mu    sync.Mutex
	seen  fs.FileInfo // of the file that was read; nil: none
	addrs []netip.Addr
}

// list returns the resolvers in order, without those that ours tells are this
// server.
func (u *upstreams) list(ours func(netip.Addr) bool) (list []netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	for _, a := range u.addrs {
		if !ours(a) && len(list) < maxUpstreams {
			list = append(list, netip.AddrPortFrom(a, u.port))
		}
	}
	return list
}

// refresh reads the file if it is another than the one that was read.
// Preconditions: u.mu is held.
func (u *upstreams) refresh() {
	now, err := os.Stat(u.path)
	if err != nil {
		u.seen, u.addrs = nil, nil
		return
	}
	if u.seen != nil && os.SameFile(now, u.seen) && now.ModTime().Equal(u.seen.ModTime()) && now.Size() == u.seen.Size() {
		return
	}
	u.seen, u.addrs = now, nameservers(u.path)
}
