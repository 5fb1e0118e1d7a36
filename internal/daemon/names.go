package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"banger/internal/dns"
	"banger/internal/lifecycle"
)

// A NameServer tells guests and the host who is who. Its methods may be called
// concurrently.
type NameServer interface {
	lifecycle.DNS
	// Open begins to answer the host, and returns where. Machines run without,
	// so that it cannot is no reason not to go on: Warnings tells.
	Open(dns.Names) (addr string)
	// Warnings tells what keeps names from being found.
	Warnings() []string
	Close() error
}

// localNames is where the host finds names of machines.
var localNames = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dns.DefaultPort)

// resolvConf names the host's resolvers (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// names is the real NameServer.
type names struct {
	log *slog.Logger

	mu     sync.Mutex
	server *dns.Server // nil before Open; guarded by mu
	local  error       // why the host is not answered as it should; guarded by mu
	guests error       // why guests are not answered; guarded by mu
}

func (n *names) Open(who dns.Names) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = dns.New(dns.Options{Names: who, Log: n.log, ResolvConf: resolvConf})
	addr, err := n.server.ListenLocal(localNames)
	if err != nil {
		n.local = fmt.Errorf("the host finds no names of machines: %w", err)
		n.log.Warn("answer names", "err", err)
		return ""
	}
	if addr != localNames {
		n.local = fmt.Errorf("port %d is taken: names of machines are answered on %s", localNames.Port(), addr)
	}
	return addr.String()
}

func (n *names) ServeGuests(bridge netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.server.ListenGuests(bridge)
	if err != nil {
		err = fmt.Errorf("guests find no names of machines: %w", err)
		n.log.Warn("answer guests", "err", err)
	}
	n.guests = err
}

func (n *names) Resolvers() []netip.Addr { return dns.Resolvers(resolvConf) }

func (n *names) Warnings() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, err := range []error{n.local, n.guests} {
		if err != nil {
			list = append(list, err.Error())
		}
	}
	return list
}

func (n *names) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return nil
	}
	return n.server.Close()
}
