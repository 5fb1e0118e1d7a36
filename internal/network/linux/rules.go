package linux

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// Priorities of base chains (netfilter_bridge.h, netfilter_ipv4.h; nft(8)).
var (
	early       = nftables.ChainPriorityRef(-300) // before the bridge's and everybody's own
	firstNAT    = nftables.ChainPriorityRef(-199) // the first that a NAT chain can have; Docker's and others' have -100
	beforeOther = nftables.ChainPriorityRef(-10)  // what we reject is rejected before another drops it in silence
)

// linkLocal holds the cloud's own services on most clouds: credentials of the
// host.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// Keys of sets.
var (
	ifMAC   = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr)
	ifIP    = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)
	ifMACIP = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)
)

// frameRules makes the table that tells machines by their taps.
func (n *Network) frameRules(t *table, ports []network.Port) {
	taps := network.TapName(n.tag, "")
	var macs, addrs, arps [][]byte
	for _, p := range ports {
		name, ip := ifname(network.TapName(n.tag, p.ID)), p.IP.AsSlice()
		mac := padded(mustMAC(p.ID))
		macs = append(macs, join(name, mac))
		addrs = append(addrs, join(name, ip))
		arps = append(arps, join(name, mac, ip))
	}
	macSet, addrSet, arpSet := t.set("macs", ifMAC, macs), t.set("addrs", ifIP, addrs), t.set("arps", ifMACIP, arps)

	pre := t.chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, early)
	t.rule(pre, iifNotPrefix(taps), accept())
	t.rule(pre, tuple(macSet, expr.CmpOpNeq, load(ll, etherSrc, 6, afterIf)), drop())
	// The type as it stands in the frame: of one with a VLAN tag the kernel's
	// own idea is what the tag hides.
	t.rule(pre, field(ll, etherType, 0x08, 0x00), tuple(addrSet, expr.CmpOpEq, load(nh, ipSrc, 4, afterIf)), accept())
	t.rule(pre, field(ll, etherType, 0x08, 0x06), // of Ethernet and IPv4 (RFC 826)
		field(nh, arpHType, 0, 1), field(nh, arpPType, 0x08, 0x00), field(nh, arpHLen, 6, 4),
		tuple(arpSet, expr.CmpOpEq, load(nh, arpSenderMAC, 6, afterIf), load(nh, arpSenderIP, 4, afterMAC)), accept())
	t.rule(pre, drop())

	// Frames to most of the addresses of IEEE 802.1D, section 7.12.6, pass no
	// prerouting and go to the host as if the tap were no port of the bridge
	// (br_handle_frame in net/bridge/br_input.c). For the one that does not
	// pass here either see makePort.
	in := t.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, early)
	t.rule(in, iifPrefix(taps),
		masked(ll, etherDst, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, expr.CmpOpEq, []byte{0x01, 0x80, 0xc2, 0, 0, 0}), drop())
}

// packetRules makes the table that keeps machines from the host, and lets them
// and answers to them through.
func (n *Network) packetRules(t *table, subnet netip.Prefix, noted []string) {
	names := make([][]byte, len(noted))
	for i, u := range noted {
		names[i] = ifname(u)
	}
	t.set(notedSet, nftables.TypeIFName, names)

	// A tap is a port of the bridge or nothing.
	pre := t.chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, early)
	t.rule(pre, iifPrefix(network.TapName(n.tag, "")), drop())
	// What a guest sends to the host is not for where others lead it, such as
	// a port that Docker publishes: led to where it goes already, it is led
	// nowhere else, and comes to our input.
	nat := t.chain("dnat", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, firstNAT)
	t.rule(nat, ipv4(), iif(n.bridge), toHost(), dnatToItself())
	n.inputRules(t, subnet)
	n.forwardRules(t, subnet)
	post := t.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(post, ipv4(), saddr(subnet), oifNot(n.bridge), masquerade())
}

func (n *Network) inputRules(t *table, subnet netip.Prefix) {
	gateway := netip.PrefixFrom(network.Gateway(subnet), 32)
	in := t.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, beforeOther)
	// The bridge's address is for guests and the host, also where a neighbour
	// of the host sends to it through an uplink.
	t.rule(in, iifNot(n.bridge), iifNot("lo"), ipv4(), daddr(gateway), drop())
	t.rule(in, iifNot(n.bridge), accept())
	t.rule(in, ipv6(), drop())
	t.rule(in, answers(), accept())
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		t.rule(in, ipv4(), daddr(gateway), l4proto(proto), field(th, dstPort, 0, 53), accept())
	}
	t.rule(in, l4proto(unix.IPPROTO_TCP), reset())
	t.rule(in, prohibit())
}

func (n *Network) forwardRules(t *table, subnet netip.Prefix) {
	fwd := t.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, beforeOther)
	t.rule(fwd, ipv6(), iif(n.bridge), drop())
	t.rule(fwd, ipv6(), oif(n.bridge), drop())
	t.rule(fwd, ipv4(), iif(n.bridge), saddrNot(subnet), drop())
	t.rule(fwd, ipv4(), iif(n.bridge), daddr(linkLocal), l4proto(unix.IPPROTO_TCP), reset())
	t.rule(fwd, ipv4(), iif(n.bridge), daddr(linkLocal), prohibit())
	t.rule(fwd, iif(n.bridge), oif(n.bridge), accept())
	t.rule(fwd, oif(n.bridge), answers(), accept())
	t.rule(fwd, oif(n.bridge), drop())
}

// mustMAC is the address of a machine whose id was checked.
func mustMAC(id string) net.HardwareAddr {
	mac, err := network.MAC(id)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return mac
}

// padded is a MAC as it stands in a concatenation.
func padded(mac net.HardwareAddr) []byte { return append(append([]byte{}, mac...), 0, 0) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
