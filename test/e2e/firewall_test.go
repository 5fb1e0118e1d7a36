//go:build e2e

package e2e

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"banger/internal/network"
	"banger/test/netns"
)

// A foreignFirewall is a ruleset of somebody else's that drops what it does not
// know.
type foreignFirewall struct {
	name, rules string
	what        []string // how its obstacles are told, sorted; none: there is none
	// hint is the line of a tool that may not be here, and does what the rules
	// in mends do; empty: every obstacle's line is run.
	hint, mends string
}

var foreignFirewalls = []foreignFirewall{
	{"policy", `table ip filter {
		chain FORWARD { type filter hook forward priority filter; policy drop; }
	}`, []string{"table ip filter, chain FORWARD (policy drop)"}, "", ""},
	{"lets answers through", `table inet mine {
		chain forward { type filter hook forward priority 5; policy drop
			ct state vmap { established : accept, related : accept, invalid : drop }
			ct state { established, related } accept
			iifname "docker0" accept
		}
	}`, []string{"table inet mine, chain forward (policy drop)"}, "", ""},
	{"rejects at the end", `table inet mine {
		chain others { ip saddr 198.18.0.0/15 accept
			counter reject with icmpx admin-prohibited
		}
		chain forward { type filter hook forward priority 0; policy accept
			iifname "lo" accept
			jump others
		}
	}`, []string{"table inet mine, chain forward (a rule drops)"}, "", ""},
	{"names too", `table ip filter {
		chain FORWARD { type filter hook forward priority filter; policy drop; }
		chain INPUT { type filter hook input priority filter; policy drop
			ct state established,related accept
			tcp dport 22 accept
		}
	}`, []string{"table ip filter, chain FORWARD (policy drop)", "table ip filter, chain INPUT (policy drop)"}, "", ""},
	{"frames", `table bridge mine {
		chain forward { type filter hook forward priority 0; policy drop; }
	}`, []string{"table bridge mine, chain forward (policy drop)"}, "", ""},
	{"Docker", `table ip filter {
		chain DOCKER-USER { counter return
		}
		chain DOCKER { }
		chain FORWARD { type filter hook forward priority filter; policy drop
			counter jump DOCKER-USER
			oifname "docker0" ct state related,established accept
			oifname "docker0" jump DOCKER
			iifname "docker0" oifname != "docker0" accept
		}
	}`, nil, "", ""},
	{"knows the way", `table inet mine {
		chain forward { type filter hook forward priority 0; policy drop
			ct state established,related accept
			iifname "banger-*" accept
		}
		chain input { type filter hook input priority 0; policy drop
			ct state established,related accept
			iifname "banger-*" udp dport 53 accept
			iifname "banger-*" meta l4proto tcp tcp dport { 53, 80 } accept
		}
	}`, nil, "", ""},
	{"firewalld", `table inet firewalld {
		chain filter_IN_public { tcp dport 22 accept
			meta l4proto { icmp, ipv6-icmp } accept
			reject with icmpx admin-prohibited
		}
		chain filter_FWD_public { reject with icmpx admin-prohibited
		}
		chain filter_INPUT_ZONES { goto filter_IN_public
		}
		chain filter_FORWARD_ZONES { goto filter_FWD_public
		}
		chain filter_INPUT { type filter hook input priority filter + 10; policy accept
			ct state { established, related } accept
			ct status dnat accept
			iifname "lo" accept
			ct state invalid drop
			jump filter_INPUT_ZONES
			reject with icmpx admin-prohibited
		}
		chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept
			ct state { established, related } accept
			ct status dnat accept
			iifname "lo" accept
			ct state invalid drop
			ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
			jump filter_FORWARD_ZONES
			reject with icmpx admin-prohibited
		}
	}`, []string{"table inet firewalld, chain filter_FORWARD (a rule drops)", "table inet firewalld, chain filter_INPUT (a rule drops)"},
		"firewall-cmd --zone=trusted --add-interface=banger-abc123 && firewall-cmd --permanent --zone=trusted --add-interface=banger-abc123", `
		add chain inet firewalld filter_IN_trusted { accept; }
		add chain inet firewalld filter_FWD_trusted { accept; }
		insert rule inet firewalld filter_INPUT_ZONES iifname "banger-abc123" goto filter_IN_trusted
		insert rule inet firewalld filter_FORWARD_ZONES iifname "banger-abc123" goto filter_FWD_trusted`},
	{"is about others", `table inet mine {
		chain forward { type filter hook forward priority 0; policy accept
			iifname "eth7" drop
			ip saddr 198.18.0.0/15 drop
			tcp dport 25 reject
			ct state invalid drop
			meta mark 7 drop
			oifname { "eth8", "eth9" } drop
		}
		chain out { type filter hook output priority 0; policy drop
			accept
		}
	}`, nil, "", ""},
}

// Another's firewall that drops is told of with a line that mends it, and
// Docker's is opened in the place it has for that.
func TestNetworkForeignFirewall(t *testing.T) {
	for _, f := range foreignFirewalls {
		t.Run(f.name, func(t *testing.T) {
			eachNetfilter(t, func(t *testing.T, b *netBed) {
				b.host.Output(t, "nft", f.rules)
				words := strings.Fields(f.rules)
				table := func() string {
					return withoutCounts(b.host.Output(t, "nft", "list", "table", words[1], words[2]))
				}
				before := table()
				must(t, b.n.Apply(t.Context(), b.want))
				obstacles, err := b.n.Obstacles(t.Context())
				must(t, err)
				var what []string
				for _, o := range obstacles {
					what = append(what, o.What)
				}
				slices.Sort(what)
				if !slices.Equal(what, f.what) {
					t.Fatalf("Obstacles = %q, want %q", what, f.what)
				}
				if len(f.what) > 0 && before != table() {
					t.Error("Apply changed what is not ours")
				}
				b.serve()
				if len(f.what) > 0 { // and they are in the way indeed
					if strings.HasPrefix(f.what[0], "table bridge") {
						b.a.send(ether(b.b.mac, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, b.b.ip, udp(1, 2, bad))))
					} else {
						b.a.sendIP(protoUDP, netip.MustParseAddr(netns.Outside), udp(1, 7777, bad))
					}
				}
				for _, o := range obstacles {
					switch {
					case f.hint == "":
						b.host.Output(t, "sh", "-c", o.Hint)
					case o.Hint != f.hint:
						t.Errorf("the hint is %q, want %q", o.Hint, f.hint)
					}
				}
				if f.mends != "" {
					b.host.Output(t, "nft", f.mends)
				}
				if left, err := b.n.Obstacles(t.Context()); err != nil || len(left) > 0 {
					t.Errorf("Obstacles after the hint = %v, %v", left, err)
				}
				b.works()
			})
		})
	}
}

// serve has what guests should reach answer.
func (b *netBed) serve() {
	b.t.Helper()
	serveUDP(b.t, b.internet, netns.Outside+":7777")
	serveUDP(b.t, b.host, b.gateway.String()+":53")
	serveTCP(b.t, b.host, b.gateway.String()+":53")
}

// works checks that a guest reaches what it should.
func (b *netBed) works() {
	b.t.Helper()
	outside := netip.MustParseAddr(netns.Outside)
	if got := b.a.asks(outside, 7777); got != netns.HostAddr {
		b.t.Errorf("outside it comes from %s", got)
	}
	b.a.asks(b.gateway, 53)
	b.a.accepted(b.gateway, 53)
	b.a.reaches(b.b)
	b.b.reaches(b.a)
}

// The rules in Docker's chain stand there once, at its head, and go with the
// network.
func TestNetworkDockerUser(t *testing.T) {
	host, internet := netns.New(t)
	host.Output(t, "nft", foreignFirewalls[5].rules)
	before := host.Output(t, "nft", "list", "ruleset")
	chain := func() []string {
		out := strings.TrimSpace(host.Output(t, "nft", "list", "chain", "ip", "filter", "DOCKER-USER"))
		var rules []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "\t\t") {
				rules = append(rules, withoutCounts(line))
			}
		}
		return rules
	}
	b := newNetBed(t, host, internet)
	want := []string{
		`iifname "banger-abc123" counter packets bytes accept comment "banger-abc123"`,
		`oifname "banger-abc123" counter packets bytes accept comment "banger-abc123"`,
		`counter packets bytes return`,
	}
	for range 2 {
		must(t, b.n.Apply(t.Context(), b.want))
		if got := chain(); !slices.Equal(got, want) {
			t.Errorf("DOCKER-USER has %q, want %q", got, want)
		}
	}
	// Whatever somebody makes of them, they are mended.
	host.Output(t, "nft", "insert", "rule", "ip", "filter", "DOCKER-USER", "iifname", `"eth9"`, "drop")
	handle := host.Output(t, "sh", "-c", `nft -a list chain ip filter DOCKER-USER | sed -n 's/.*iifname "banger-abc123".* handle //p'`)
	host.Output(t, "nft", "delete", "rule", "ip", "filter", "DOCKER-USER", "handle", strings.TrimSpace(handle))
	must(t, b.n.Apply(t.Context(), b.want))
	want = slices.Insert(want, 2, `iifname "eth9" drop`)
	if got := chain(); !slices.Equal(got, want) {
		t.Errorf("DOCKER-USER has %q, want %q", got, want)
	}
	b.serve()
	b.works()
	host.Output(t, "nft", "delete", "rule", "ip", "filter", "DOCKER-USER", "handle",
		strings.TrimSpace(host.Output(t, "sh", "-c", `nft -a list chain ip filter DOCKER-USER | sed -n 's/.*"eth9".* handle //p'`)))
	must(t, b.n.CleanUp(t.Context()))
	if after := host.Output(t, "nft", "list", "ruleset"); withoutCounts(after) != withoutCounts(before) {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// withoutCounts is a ruleset without what its counters counted.
func withoutCounts(rules string) string {
	var words []string
	count := false
	for _, w := range strings.Fields(rules) {
		if !count {
			words = append(words, w)
		}
		count = w == "packets" || w == "bytes"
	}
	return strings.Join(words, " ")
}

// Forwarding is switched off again by the last that needs it, and by nobody if
// it was on.
func TestNetworkForwarding(t *testing.T) {
	two := network.Want{Subnet: netip.MustParsePrefix("10.70.0.0/24"), Ports: []network.Port{
		{ID: "0000000a", IP: netip.MustParseAddr("10.70.0.2"), UID: 4010},
	}}
	one := network.Want{Subnet: netip.MustParsePrefix("10.71.0.0/24"), Ports: []network.Port{
		{ID: "0000000a", IP: netip.MustParseAddr("10.71.0.2"), UID: 4010},
	}}
	bed := func(t *testing.T) (host *netns.NS, a, b network.Network, forwards func(want string, after string)) {
		host, _ = netns.New(t)
		networks := newNetworks(t, host)
		return host, networks(testTag), networks("abc124"), func(want, after string) {
			t.Helper()
			if got := host.Output(t, "cat", "/proc/sys/net/ipv4/conf/"+netns.Uplink+"/forwarding"); got != want+"\n" {
				t.Errorf("%s: forwarding is %q, want %q", after, got, want)
			}
			if got := host.Output(t, "cat", "/proc/sys/net/ipv4/conf/lo/forwarding"); got != "0\n" {
				t.Errorf("%s: forwarding of another link is %q", after, got)
			}
		}
	}
	t.Run("the last switches it off", func(t *testing.T) {
		_, a, b, forwards := bed(t)
		forwards("0", "before")
		must(t, a.Apply(t.Context(), one))
		forwards("1", "after one")
		must(t, b.Apply(t.Context(), two))
		must(t, a.Apply(t.Context(), one))
		must(t, a.CleanUp(t.Context()))
		forwards("1", "while the other is there")
		must(t, b.CleanUp(t.Context()))
		forwards("0", "after both")
	})
	t.Run("it was on", func(t *testing.T) {
		host, a, b, forwards := bed(t)
		setSysctl(t, host, "ipv4/conf/"+netns.Uplink+"/forwarding", "1")
		must(t, a.Apply(t.Context(), one))
		must(t, b.Apply(t.Context(), two))
		must(t, a.CleanUp(t.Context()))
		must(t, b.CleanUp(t.Context()))
		forwards("1", "after both")
	})
	t.Run("somebody needs it for the whole host since", func(t *testing.T) {
		host, a, _, _ := bed(t)
		must(t, a.Apply(t.Context(), one))
		setSysctl(t, host, "ipv4/ip_forward", "1")
		must(t, a.CleanUp(t.Context()))
		if got := host.Output(t, "cat", "/proc/sys/net/ipv4/conf/"+netns.Uplink+"/forwarding"); got != "1\n" {
			t.Error("forwarding was switched off")
		}
	})
	t.Run("the uplink changes", func(t *testing.T) {
		host, a, _, forwards := bed(t)
		must(t, a.Apply(t.Context(), one))
		host.IP(t, "route", "del", "default")
		must(t, a.Apply(t.Context(), one))
		forwards("1", "without a default route")
		host.IP(t, "link", "add", "other", "type", "veth", "peer", "name", "end")
		host.IP(t, "addr", "add", "192.0.2.1/24", "dev", "other")
		host.IP(t, "link", "set", "other", "up")
		host.IP(t, "route", "add", "default", "via", "192.0.2.2")
		must(t, a.Apply(t.Context(), one))
		forwards("0", "by another uplink")
		if got := host.Output(t, "cat", "/proc/sys/net/ipv4/conf/other/forwarding"); got != "1\n" {
			t.Errorf("forwarding of the other uplink is %q", got)
		}
		host.IP(t, "link", "del", "other") // with what it forwarded
		must(t, a.CleanUp(t.Context()))
	})
	t.Run("by halves of the internet", func(t *testing.T) { // as VPNs do
		host, a, _, forwards := bed(t)
		host.IP(t, "route", "del", "default")
		host.IP(t, "route", "add", "0.0.0.0/1", "via", netns.InternetAddr)
		host.IP(t, "route", "add", "128.0.0.0/1", "via", netns.InternetAddr, "table", "77")
		p, err := a.Choose(t.Context())
		if err != nil || !p.Addr().IsPrivate() {
			t.Errorf("Choose = %v, %v", p, err)
		}
		must(t, a.Apply(t.Context(), one))
		forwards("1", "after one")
		must(t, a.CleanUp(t.Context()))
		forwards("0", "at the end")
	})
}

// A route of any table is a collision, and so is an address.
func TestNetworkCollision(t *testing.T) {
	host, _ := netns.New(t)
	n := newNetworks(t, host)(testTag)
	want := network.Want{Subnet: netip.MustParsePrefix("10.70.0.0/24"), Ports: []network.Port{
		{ID: "0000000a", IP: netip.MustParseAddr("10.70.0.2"), UID: 4010},
	}}
	for name, add := range map[string][]string{
		"10.70.0.5 dev lo":         {"addr", "add", "10.70.0.5/32", "dev", "lo"},
		"10.70.0.0/25 via":         {"route", "add", "10.70.0.0/25", "via", netns.InternetAddr, "table", "99"},
		"10.64.0.0/10 dev " + "up": {"route", "add", "10.64.0.0/10", "dev", netns.Uplink},
		"10.70.0.128/25":           {"route", "add", "blackhole", "10.70.0.128/25"},
	} {
		host.IP(t, add...)
		err := n.Apply(t.Context(), want)
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "/32", ""), name) {
			t.Errorf("Apply = %v, want a collision with %s", err, name)
		}
		del := slices.Clone(add)
		del[1] = "del"
		host.IP(t, del...)
	}
	if links := linksOf(t, host); len(links) != 0 {
		t.Errorf("there is %v", links)
	}
	must(t, n.Apply(t.Context(), want))
}

// What a crash left in the middle of making it is ours, and what only looks
// like it is not.
func TestNetworkHalfMade(t *testing.T) {
	host, internet := netns.New(t)
	br := network.BridgeName(testTag)
	host.IP(t, "link", "add", br, "address", "02:bb:00:ab:c1:23", "type", "bridge") // no alias yet
	host.IP(t, "tuntap", "add", network.TapName(testTag, "0000000a"), "mode", "tap", "user", "4010")
	host.IP(t, "tuntap", "add", network.TapName(testTag, "0000000c"), "mode", "tap")
	b := newNetBed(t, host, internet)
	b.a.reaches(b.b)
	if links := linksOf(t, host); len(links) != 3 {
		t.Errorf("there is %v, want the bridge and two taps", links)
	}
	must(t, b.n.CleanUp(t.Context()))

	host.IP(t, "link", "add", br, "type", "bridge")
	host.IP(t, "link", "set", br, "alias", "banger /somebody/else")
	if err := b.n.Apply(t.Context(), b.want); err == nil {
		t.Error("Apply took a bridge of another root")
	}
	must(t, b.n.CleanUp(t.Context()))
	host.IP(t, "link", "del", br)
	host.IP(t, "tuntap", "add", network.TapName(testTag, "0000000a"), "mode", "tun")
	if err := b.n.Apply(t.Context(), b.want); err == nil {
		t.Error("Apply took a tun for a tap")
	}
}

// A tap can be opened by its owner and nobody else.
func TestNetworkOwner(t *testing.T) {
	host, internet := netns.New(t)
	b := newNetBed(t, host, internet)
	must(t, b.n.Apply(t.Context(), network.Want{Subnet: b.want.Subnet, Ports: append(slices.Clone(b.want.Ports),
		network.Port{ID: "0000000c", IP: netip.MustParseAddr("10.64.8.12"), UID: 4012})}))
	tap := network.TapName(testTag, "0000000c")
	for uid, ok := range map[uint32]bool{4012: true, 4011: false} {
		err := openTapAs(host, tap, uid)
		if (err == nil) != ok {
			t.Errorf("user %d opens the tap: %v", uid, err)
		}
	}
	if _, err := net.InterfaceByName(tap); err == nil {
		t.Error("the tap is on the host of the test")
	}
}
