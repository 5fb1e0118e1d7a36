//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/network"
	"banger/test/netns"
)

const testTag = "abc123"

// A netBed is a host with two guests on its bridge, and an internet.
type netBed struct {
	t              *testing.T
	host, internet *netns.NS
	n              network.Network
	want           network.Want
	a, b           *tapGuest
	gateway        netip.Addr
}

// eachNetfilter runs a test twice, as the host's br_netfilter is off and on.
func eachNetfilter(t *testing.T, test func(*testing.T, *netBed)) {
	for _, on := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+on, func(t *testing.T) {
			host, internet := netns.New(t)
			for _, name := range []string{"iptables", "ip6tables", "arptables"} {
				setSysctl(t, host, "bridge/bridge-nf-call-"+name, on)
			}
			setSysctl(t, host, "ipv4/icmp_ratelimit", "0") // every refusal is told
			test(t, newNetBed(t, host, internet))
		})
	}
}

func setSysctl(t *testing.T, ns *netns.NS, name, value string) {
	t.Helper()
	must(t, ns.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }))
}

func newNetBed(t *testing.T, host, internet *netns.NS) *netBed {
	t.Helper()
	subnet := netip.MustParsePrefix("10.64.8.0/22")
	b := &netBed{
		t: t, host: host, internet: internet, n: newNetworks(t, host)(testTag), gateway: network.Gateway(subnet),
		want: network.Want{Subnet: subnet, Ports: []network.Port{
			{ID: "0000000a", IP: netip.MustParseAddr("10.64.8.10"), UID: 4010},
			{ID: "0000000b", IP: netip.MustParseAddr("10.64.8.11"), UID: 4011},
		}},
	}
	must(t, b.n.Apply(t.Context(), b.want))
	var mac net.HardwareAddr
	must(t, host.Do(func() error {
		i, err := net.InterfaceByName(network.BridgeName(testTag))
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	}))
	b.a = newTapGuest(t, host, b.want.Ports[0], mac)
	b.b = newTapGuest(t, host, b.want.Ports[1], mac)
	b.a.awaitPort(b.b)
	b.b.awaitPort(b.a)
	return b
}

// watchLink fails the test if the host gets a bad frame of a type by a link.
func (b *netBed) watchLink(name string, typ uint16) {
	b.t.Helper()
	var f *os.File
	must(b.t, b.host.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		typ = typ<<8 | typ>>8 // the network's order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(typ))
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: typ, Ifindex: i.Index})
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return // closed
			}
			if bytes.Contains(buf[:n], bad) {
				b.t.Errorf("the host got a frame by %s that should not come out:\n% x", name, buf[:n])
			}
		}
	}()
	b.t.Cleanup(func() { f.Close(); <-done })
}

// pad puts the mark of bad frames behind one that has no room for it within.
func pad(p []byte) []byte { return append(p, bad...) }

// badFrames are what guest a may not send, to a MAC.
func (b *netBed) badFrames(to net.HardwareAddr, toIP netip.Addr) map[string][]byte {
	a, o := b.a, b.b
	stranger := net.HardwareAddr{0x02, 0xba, 9, 9, 9, 9}
	data := udp(1, 53, bad)
	own := ipv4(protoUDP, a.ip, toIP, data)
	from := func(src netip.Addr) []byte {
		return ether(to, a.mac, typeIPv4, ipv4(protoUDP, src, toIP, data))
	}
	who := func(mac net.HardwareAddr, ip netip.Addr, op uint16) []byte {
		return ether(to, a.mac, typeARP, pad(arp(op, mac, ip, o.mac, toIP)))
	}
	odd := func(edit func([]byte)) []byte {
		p := arp(2, a.mac, a.ip, o.mac, toIP)
		edit(p)
		return ether(to, a.mac, typeARP, pad(p))
	}
	v6 := append([]byte{0x60, 0, 0, 0, 0, byte(len(data)), protoUDP, 64}, make([]byte, 32)...)
	v6[8], v6[9], v6[23], v6[24], v6[25], v6[39] = 0xfe, 0x80, 1, 0xff, 0x02, 1
	bpdu := append([]byte{0x42, 0x42, 3}, make([]byte, 35)...) // IEEE 802.2, 802.1D
	return map[string][]byte{
		"MAC of the other guest":       ether(to, o.mac, typeIPv4, own),
		"MAC and IP of the other":      ether(to, o.mac, typeIPv4, ipv4(protoUDP, o.ip, toIP, data)),
		"MAC of nobody":                ether(to, stranger, typeIPv4, own),
		"MAC of the bridge":            ether(to, a.gateway, typeIPv4, own),
		"MAC of the other, ARP":        ether(to, o.mac, typeARP, pad(arp(2, o.mac, o.ip, o.mac, toIP))),
		"IP of the other guest":        from(o.ip),
		"IP of the gateway":            from(b.gateway),
		"IP of nobody":                 from(netip.MustParseAddr("10.64.8.99")),
		"IP outside":                   from(netip.MustParseAddr(netns.Outside)),
		"no IP":                        from(netip.IPv4Unspecified()),
		"ARP: IP of the other":         who(a.mac, o.ip, 2),
		"ARP: IP of the gateway":       who(a.mac, b.gateway, 2),
		"ARP: asks as the gateway":     who(a.mac, b.gateway, 1),
		"ARP: MAC of the other within": who(o.mac, a.ip, 2),
		"ARP: probe without sender":    who(a.mac, netip.IPv4Unspecified(), 1),
		"ARP: hardware type":           odd(func(p []byte) { p[1] = 6 }),
		"ARP: protocol type":           odd(func(p []byte) { p[2], p[3] = 0x86, 0xdd }),
		"ARP: lengths":                 odd(func(p []byte) { p[4], p[5] = 4, 6 }),
		"ARP: cut off":                 append(ether(to, a.mac, typeARP, arp(2, a.mac, a.ip, o.mac, toIP)[:8]), bad...),
		"IPv6":                         ether(to, a.mac, typeIPv6, append(v6, data...)),
		"IPv6 in a frame of IPv4":      ether(to, a.mac, typeIPv4, append(v6, data...)),
		"VLAN":                         vlan(ether(to, a.mac, typeIPv4, own), typeVLAN),
		"VLAN, ARP":                    vlan(ether(to, a.mac, typeARP, pad(arp(2, a.mac, a.ip, o.mac, toIP))), typeVLAN),
		"VLAN in a VLAN":               vlan(vlan(ether(to, a.mac, typeIPv4, own), typeVLAN), 0x88a8),
		"spanning tree":                ether(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, a.mac, 38, pad(bpdu)),
		"LLDP":                         ether(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, a.mac, 0x88cc, bad),
		"PPPoE":                        ether(to, a.mac, 0x8864, append([]byte{0x11, 0, 0, 1, 0, 60, 0, 0x21}, own...)),
		"nothing known":                ether(to, a.mac, 0x9999, bad),
		"IP without its header":        append(ether(to, a.mac, typeIPv4, []byte{0x45})[:20], bad...),
	}
}

// What a guest sends under another's name comes out nowhere, and nobody learns
// from it.
func TestNetworkSpoof(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		b.watchLink(network.BridgeName(testTag), unix.ETH_P_ALL)
		serveUDP(t, b.host, "0.0.0.0:53")
		for to, dst := range map[string]struct {
			mac net.HardwareAddr
			ip  netip.Addr
		}{"the other": {b.b.mac, b.b.ip}, "the host": {b.a.gateway, b.gateway}, "everybody": {everybody, netip.MustParseAddr("10.64.11.255")}} {
			for name, f := range b.badFrames(dst.mac, dst.ip) {
				t.Run(to+", "+name, func(t *testing.T) {
					if !bytes.Contains(f, bad) {
						t.Fatal("the frame has no mark")
					}
					b.a.send(f)
					b.a.reaches(b.b)
					b.b.reaches(b.a) // what is for b goes to b still
				})
			}
		}
		if got := b.a.asks(b.gateway, 53); got != b.a.ip.String() {
			t.Errorf("the host takes %s for %s", b.a.ip, got)
		}
		for line := range bytes.Lines([]byte(b.host.IP(t, "neigh", "show", "dev", network.BridgeName(testTag)))) {
			if !bytes.Contains(line, []byte(b.a.ip.String()+" lladdr "+b.a.mac.String())) && bytes.Contains(line, []byte(b.a.mac.String())) {
				t.Errorf("the host learned: %s", line)
			}
		}
	})
}

// Frames to the addresses that no bridge forwards go another way through the
// kernel, to the host as from the tap itself.
func TestNetworkLinkLocalFrames(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		b.watchLink(network.BridgeName(testTag), unix.ETH_P_ALL)
		tap := network.TapName(testTag, b.want.Ports[0].ID)
		b.watchLink(tap, unix.ETH_P_PAE) // to hostapd and the like
		serveUDP(t, b.host, "0.0.0.0:9999")
		serveUDP(t, b.host, "0.0.0.0:53")
		// The host does not take packets from where it has no way back to.
		for _, link := range []string{"all", tap} {
			setSysctl(t, b.host, "ipv4/conf/"+link+"/rp_filter", "0")
		}
		for last := range byte(16) {
			to := net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last}
			for _, port := range []uint16{9999, 53} {
				for _, dst := range []netip.Addr{netip.MustParseAddr(netns.HostAddr), b.gateway, netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255")} {
					b.a.send(ether(to, b.b.mac, typeIPv4, ipv4(protoUDP, b.b.ip, dst, udp(1, port, bad))))
					if last != 0 { // which a bridge without spanning tree forwards as any other
						b.a.send(ether(to, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, dst, udp(1, port, bad))))
					}
				}
			}
			if last != 0x0e { // which nothing of ours sees; see linux.makePort
				b.a.send(ether(to, b.a.mac, unix.ETH_P_PAE, bad))
			}
			for op := range uint16(2) {
				b.a.send(ether(to, b.b.mac, typeARP, pad(arp(op+1, b.b.mac, b.b.ip, b.a.gateway, b.gateway))))
			}
		}
		if out := b.host.IP(t, "neigh", "show", "dev", tap); out != "" {
			t.Errorf("the host learned from the tap: %s", out)
		}
		b.a.reaches(b.b)
		b.b.reaches(b.a)
		b.a.asks(b.gateway, 53)
	})
}

// A tap that is no port of the bridge is not the guest's way into the host.
func TestNetworkTapAlone(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		serveUDP(t, b.host, "0.0.0.0:9999")
		serveUDP(t, b.host, "0.0.0.0:53")
		tap := network.TapName(testTag, b.want.Ports[0].ID)
		for _, link := range []string{"all", tap} {
			setSysctl(t, b.host, "ipv4/conf/"+link+"/rp_filter", "0")
		}
		b.host.IP(t, "link", "set", tap, "nomaster")
		mac := macOf(t, b.host, tap)
		for _, dst := range []netip.Addr{netip.MustParseAddr(netns.HostAddr), b.gateway, netip.MustParseAddr(netns.Outside)} {
			b.a.send(ether(mac, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, dst, udp(1, 9999, bad))))
			b.a.send(ether(mac, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, dst, udp(1, 53, bad))))
		}
		must(t, b.n.Apply(t.Context(), b.want)) // which mends it
		b.a.reaches(b.b)
		b.a.asks(b.gateway, 53)
	})
}

func macOf(t *testing.T, ns *netns.NS, link string) (mac net.HardwareAddr) {
	t.Helper()
	must(t, ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	}))
	return mac
}

func TestNetworkGuests(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		b.a.reaches(b.b)
		b.b.reaches(b.a)
		b.a.send(ether(everybody, b.a.mac, typeARP, arp(1, b.a.mac, b.a.ip, make(net.HardwareAddr, 6), b.b.ip)))
		if mac := b.a.awaitARP(b.b.ip); !bytes.Equal(mac, b.b.mac) {
			t.Errorf("the other guest's MAC is %s", mac)
		}
		b.a.send(ether(b.b.mac, b.a.mac, typeIPv4, ipv4(protoICMP, b.a.ip, b.b.ip, echo([]byte("ping")))))
		b.b.await("echo request", func(p packet) bool { return p.icmp == 8 && p.src == b.a.ip })
		b.a.send(ether(b.b.mac, b.a.mac, typeIPv4, ipv4(protoTCP, b.a.ip, b.b.ip, tcp(b.a.ip, b.b.ip, 77, 80, tcpSYN))))
		b.b.await("SYN", func(p packet) bool { return p.flags == tcpSYN && p.dport == 80 && p.src == b.a.ip })

		// What is for nobody on the bridge is nobody's to see.
		nobody := net.HardwareAddr{2, 0xba, 9, 9, 9, 9}
		b.a.send(ether(nobody, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, b.b.ip, udp(1, 2, bad))))

		// A guest that asks the gateway to pass it on is no stranger.
		b.a.sendIP(protoUDP, b.b.ip, udp(1, 2, []byte("by the gateway")))
		b.b.await("datagram", func(p packet) bool { return string(p.payload) == "by the gateway" && p.src == b.a.ip })

		// The host reaches guests, and hears their answers.
		b.a.send(ether(everybody, b.a.mac, typeARP, arp(1, b.a.mac, b.a.ip, make(net.HardwareAddr, 6), b.gateway)))
		if mac := b.a.awaitARP(b.gateway); !bytes.Equal(mac, b.a.gateway) {
			t.Errorf("the gateway's MAC is %s", mac)
		}
		sendUDP(t, b.host, b.a.ip.String()+":5000", []byte("from the host"))
		b.a.await("datagram of the host", func(p packet) bool { return p.src == b.gateway && p.dport == 5000 })
	})
}

// Guests and the host's ends have no IPv6.
func TestNetworkNoIPv6(t *testing.T) {
	host, internet := netns.New(t)
	setSysctl(t, host, "ipv6/conf/default/disable_ipv6", "0")
	b := newNetBed(t, host, internet)
	for _, link := range []string{network.BridgeName(testTag), network.TapName(testTag, b.want.Ports[0].ID)} {
		if out := host.Output(t, "cat", "/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6"); out != "1\n" {
			t.Errorf("IPv6 is on for %s", link)
		}
		if out := host.IP(t, "-6", "addr", "show", "dev", link); out != "" {
			t.Errorf("%s has %s", link, out)
		}
	}
}

// Of the host's own a guest gets names, and is told of all else that it is not
// for it.
func TestNetworkHostServices(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		b.host.IP(t, "link", "add", "another", "type", "bridge")
		b.host.IP(t, "addr", "add", "10.99.0.1/24", "dev", "another")
		b.host.IP(t, "link", "set", "another", "up")
		uplink := netip.MustParseAddr(netns.HostAddr)
		for _, addr := range []string{"0.0.0.0:80", netns.HostAddr + ":8080", b.gateway.String() + ":8080", "0.0.0.0:53"} {
			serveTCP(t, b.host, addr)
			serveUDP(t, b.host, addr)
		}
		for _, to := range []netip.Addr{b.gateway, uplink, netip.MustParseAddr("10.99.0.1")} {
			b.a.refused(to, 80)
			b.a.refused(to, 8080)
			if to != b.gateway {
				b.a.refused(to, 53)
			}
		}
		b.a.accepted(b.gateway, 53)
		if got := b.a.asks(b.gateway, 53); got != b.a.ip.String() {
			t.Errorf("the host takes %s for %s", b.a.ip, got)
		}
		b.a.sendIP(protoICMP, uplink, echo(bad))
		b.a.await("answer to an echo request", func(p packet) bool { return p.icmp == 3 && p.code == 13 })
	})
}

// A port of the host's that is led elsewhere, as Docker does with one that it
// publishes, is the host's own for a guest, and so are names.
func TestNetworkPublishedPorts(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		uplink := netip.MustParseAddr(netns.HostAddr)
		b.host.Output(t, "nft", fmt.Sprintf(`table ip docker {
			chain prerouting { type nat hook prerouting priority dstnat; policy accept
				fib daddr type local tcp dport 8080 dnat to %[1]s:80
				fib daddr type local udp dport 8080 dnat to %[1]s:80
				fib daddr type local tcp dport 8081 dnat to %[2]s:80
				fib daddr type local udp dport 8081 dnat to %[2]s:80
				fib daddr type local tcp dport 8083 dnat to %[4]s:80
				ip daddr %[3]s tcp dport 53 dnat to %[2]s:80
				ip daddr %[3]s udp dport 53 dnat to %[2]s:80
			}
			chain early { type nat hook prerouting priority -150; policy accept
				fib daddr type local tcp dport 8082 dnat to %[2]s:80
				fib daddr type local udp dport 8082 dnat to %[2]s:80
			}
		}`, b.b.ip, netns.Outside, b.gateway, uplink))
		serveTCP(t, b.internet, netns.Outside+":80")
		serveTCP(t, b.host, netns.HostAddr+":80")
		serveTCP(t, b.host, b.gateway.String()+":53")
		serveUDP(t, b.host, b.gateway.String()+":53")
		for _, to := range []netip.Addr{b.gateway, uplink} {
			for _, port := range []uint16{8080, 8081, 8082, 8083} {
				b.a.refused(to, port)
			}
		}
		b.a.accepted(b.gateway, 53)
		if got := b.a.asks(b.gateway, 53); got != b.a.ip.String() {
			t.Errorf("the host takes %s for %s", b.a.ip, got)
		}
		// Others are led on as before.
		must(t, b.internet.Do(func() error {
			c, err := net.DialTimeout("tcp4", netns.HostAddr+":8083", patience)
			if err == nil {
				c.Close()
			}
			return err
		}))
	})
}

func TestNetworkOutside(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		outside := netip.MustParseAddr(netns.Outside)
		serveUDP(t, b.internet, netns.Outside+":7777")
		serveUDP(t, b.internet, "169.254.169.254:7777")
		serveTCP(t, b.internet, "0.0.0.0:80")
		if got := b.a.asks(outside, 7777); got != netns.HostAddr {
			t.Errorf("outside it comes from %s, want the host's address", got)
		}
		b.a.accepted(outside, 80)
		b.a.sendIP(protoICMP, outside, echo([]byte("ping")))
		b.a.await("echo reply", func(p packet) bool { return p.icmp == 0 && p.proto == protoICMP && p.src == outside })

		// The cloud's own service is there, for the host alone.
		cloud := netip.MustParseAddr("169.254.169.254")
		must(t, b.host.Do(func() error {
			c, err := net.Dial("tcp4", cloud.String()+":80")
			if err == nil {
				c.Close()
			}
			return err
		}))
		b.a.refused(cloud, 80)
		b.a.refused(cloud, 7777)
		b.a.asks(outside, 7777) // behind what should not come
	})
}

// Nobody outside begins a connection to a guest, nor to the bridge's address.
func TestNetworkFromOutside(t *testing.T) {
	eachNetfilter(t, func(t *testing.T, b *netBed) {
		b.internet.IP(t, "route", "add", b.want.Subnet.String(), "via", netns.HostAddr)
		came := serveUDP(t, b.host, "0.0.0.0:53")
		for _, to := range []netip.Addr{b.a.ip, b.gateway} {
			for _, port := range []int{53, 80} {
				sendUDP(t, b.internet, fmt.Sprintf("%s:%d", to, port), bad)
			}
		}
		sendUDP(t, b.internet, netns.HostAddr+":53", []byte("behind them"))
		came()
		sendUDP(t, b.host, b.a.ip.String()+":80", []byte("from the host"))
		b.a.await("datagram of the host", func(p packet) bool { return string(p.payload) == "from the host" })
	})
}

// What is there is left as it was, whatever was in between.
func TestNetworkLeavesNothing(t *testing.T) {
	host, internet := netns.New(t)
	state := func() []string {
		var all []string
		for _, argv := range [][]string{
			{"nft", "list", "ruleset"}, {"ip", "-details", "addr"}, {"ip", "route", "show", "table", "all"}, {"ip", "rule"},
			{"sh", "-c", "grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf /proc/sys/net/bridge 2>/dev/null; true"},
		} {
			all = append(all, host.Output(t, argv...))
		}
		return all
	}
	host.Output(t, "nft", "add", "table", "inet", "somebody")
	before := state()
	b := newNetBed(t, host, internet)
	b.a.reaches(b.b)
	if after := state(); slices.Equal(before, after) {
		t.Error("there is nothing to see of a network that is there")
	}
	must(t, b.n.CleanUp(t.Context()))
	if after := state(); !slices.Equal(before, after) {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}
