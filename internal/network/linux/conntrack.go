package linux

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// establishedTimeout is for how many seconds the kernel follows an established
// connection that carries nothing (nf_conntrack-sysctl in the kernel's
// documentation).
const establishedTimeout = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"

// Connected tells which addresses have TCP connections; see [network.Network].
// It reads what the kernel's connection tracking knows, which our rules have it
// follow. Of all connections: the kernel can be asked for those of one address
// from 5.8 on, and the library cannot.
func (n *Network) Connected(_ context.Context, addrs []netip.Addr) (map[netip.Addr]time.Duration, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	follows, err := readSeconds(establishedTimeout)
	if err != nil {
		return nil, hostLacks(err, "nf_conntrack")
	}
	var flows []*netlink.ConntrackFlow
	err = dumped(func() (err error) {
		flows, err = h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", hostLacks(err, "nf_conntrack_netlink", unix.EINVAL))
	}
	return connected(flows, addrs, follows), nil
}

// connected picks out of flows those that are established and whose one end an
// address is. Without a packet, a flow's timeout runs down from follows.
func connected(flows []*netlink.ConntrackFlow, addrs []netip.Addr, follows time.Duration) map[netip.Addr]time.Duration {
	found := make(map[netip.Addr]time.Duration)
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	for _, f := range flows {
		if p, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); !ok || p.State != nl.TCP_CONNTRACK_ESTABLISHED {
			continue
		}
		quiet := max(0, follows-time.Duration(f.TimeOut)*time.Second)
		// Who answers is another than who was called where a rule leads to it.
		for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP} {
			a, _ := netip.AddrFromSlice(ip.To4())
			if was, there := found[a]; wanted[a] && (!there || quiet < was) {
				found[a] = quiet
			}
		}
	}
	return found
}

func readSeconds(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	return time.Duration(n) * time.Second, err
}
