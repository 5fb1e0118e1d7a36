//go:build e2e

package e2e

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/network"
	"banger/test/netns"
)

// Rule sets as the real programs write them.
//
//go:embed testdata
var testdata embed.FS

// A foreignFirewall is a ruleset of somebody else's that drops what it does not
// know.
type foreignFirewall struct {
	name  string
	tool  string   // whose rules they are: "nft", "iptables-nft" or "iptables-legacy"
	rules string   // or the name of a file in testdata
	what  []string // how its obstacles are told, sorted; none: there is none
	// hints are lines, sorted, of a program that may not be here, and mends are
	// the shell's that do what it does; without, every obstacle's line is run.
	hints []string
	mends string
}

var foreignFirewalls = []foreignFirewall{
	{"policy", "nft", `table ip filter {
		chain FORWARD { type filter hook forward priority filter; policy drop; }
	}`, []string{"table ip filter, chain FORWARD (policy drop)"}, nil, ""},
	{"lets answers through", "nft", `table inet mine {
		chain forward { type filter hook forward priority 5; policy drop
			ct state vmap { established : accept, related : accept, invalid : drop }
			ct state { established, related } accept
			iifname "docker0" accept
		}
	}`, []string{"table inet mine, chain forward (policy drop)"}, nil, ""},
	{"rejects at the end", "nft", `table inet mine {
		chain others { ip saddr 198.18.0.0/15 accept
			counter reject with icmpx admin-prohibited
		}
		chain forward { type filter hook forward priority 0; policy accept
			iifname "lo" accept
			jump others
		}
	}`, []string{"table inet mine, chain forward (a rule drops)"}, nil, ""},
	{"names too", "nft", `table ip filter {
		chain FORWARD { type filter hook forward priority filter; policy drop; }
		chain INPUT { type filter hook input priority filter; policy drop
			ct state established,related accept
			tcp dport 22 accept
		}
	}`, []string{"table ip filter, chain FORWARD (policy drop)", "table ip filter, chain INPUT (policy drop)"}, nil, ""},
	{"frames", "nft", `table bridge mine {
		chain forward { type filter hook forward priority 0; policy drop; }
	}`, []string{"table bridge mine, chain forward (policy drop)"}, nil, ""},
	{"knows the way", "nft", `table inet mine {
		chain forward { type filter hook forward priority 0; policy drop
			ct state vmap { established : accept, related : accept, invalid : drop }
			iifname "banger-*" accept
		}
		chain input { type filter hook input priority 0; policy drop
			ct state established,related accept
			iifname "banger-*" udp dport 53 accept
			iifname "banger-*" meta l4proto tcp tcp dport { 53, 80 } accept
		}
	}`, nil, nil, ""},
	{"is about others", "nft", `table inet mine {
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
	}`, nil, nil, ""},
	{"Docker", "iptables-nft", "docker.rules", nil, nil, ""},
	{"Docker by nftables", "nft", "docker.nft", nil, nil, ""},
	{
		"Docker by iptables-legacy", "iptables-legacy", "docker.rules",
		[]string{"table filter of iptables-legacy, chain FORWARD (policy drop)"}, nil, "",
	},
	{
		"ufw", "iptables-nft", "ufw.rules",
		[]string{"table ip filter, chain FORWARD (policy drop)", "table ip filter, chain INPUT (policy drop)"},
		[]string{
			"ufw allow in on banger-abc123",
			"ufw route allow in on banger-abc123 && ufw route allow out on banger-abc123",
		}, `
		iptables-nft -A ufw-user-input -i banger-abc123 -j ACCEPT
		iptables-nft -A ufw-user-forward -i banger-abc123 -j ACCEPT
		iptables-nft -A ufw-user-forward -o banger-abc123 -j ACCEPT`,
	},
	{
		"firewalld", "nft", "firewalld.nft",
		[]string{"table inet firewalld, chain filter_FORWARD (a rule drops)", "table inet firewalld, chain filter_INPUT (a rule drops)"},
		slices.Repeat([]string{"firewall-cmd --zone=trusted --add-interface=banger-abc123 && " +
			"firewall-cmd --permanent --zone=trusted --add-interface=banger-abc123"}, 2), `
		nft 'add chain inet firewalld filter_IN_trusted { accept; }
		add chain inet firewalld filter_FWD_trusted { accept; }
		insert rule inet firewalld filter_INPUT_ZONES iifname "banger-abc123" goto filter_IN_trusted
		insert rule inet firewalld filter_FORWARD_ZONES iifname "banger-abc123" goto filter_FWD_trusted'`,
	},
}

// firewall returns the one of that name, for the daemon with a tag.
func firewall(name, tag string) foreignFirewall {
	i := slices.IndexFunc(foreignFirewalls, func(f foreignFirewall) bool { return f.name == name })
	f := foreignFirewalls[i]
	f.hints, f.mends = slices.Clone(f.hints), strings.ReplaceAll(f.mends, testTag, tag)
	for i := range f.hints {
		f.hints[i] = strings.ReplaceAll(f.hints[i], testTag, tag)
	}
	return f
}

// load has a host take the rules.
func (f foreignFirewall) load(t *testing.T, host *netns.NS) {
	t.Helper()
	rules := f.rules
	if text, err := testdata.ReadFile("testdata/" + f.rules); err == nil {
		rules = string(text)
	}
	argv := []string{f.tool + "-restore"}
	if f.tool == "nft" {
		argv = []string{"nft", "-f", "-"}
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin = strings.NewReader(rules)
	out := new(bytes.Buffer)
	c.Stdout, c.Stderr = out, out
	if err := host.Run(c); err != nil {
		t.Fatalf("load the rules of %s: %v\n%s", f.name, err, out)
	}
}

// foreignRules are what others have of rules on a host, as the tool that made
// f lists them, without what is counted.
func (f foreignFirewall) foreignRules(t *testing.T, host *netns.NS) string {
	t.Helper()
	if f.tool != "nft" {
		// Of the table filter; each warns of what the other has.
		return host.Output(t, "sh", "-c", f.tool+" -S 2>/dev/null")
	}
	return withoutCounts(host.Output(t, "sh", "-c", "nft list tables | grep -v banger_ | while read -r t; do nft list $t; done"))
}

// unload takes from a host what others have of rules.
func unload(t *testing.T, host *netns.NS) {
	t.Helper()
	host.Output(t, "sh", "-c", `set -e
		nft list tables | sed '/banger_/d; s/^/delete /' | nft -f -
		if grep -q filter /proc/thread-self/net/ip_tables_names; then
			printf '%s\n' '*filter' ':INPUT ACCEPT' ':FORWARD ACCEPT' COMMIT '*nat' COMMIT '*raw' COMMIT | iptables-legacy-restore
		fi`)
}

// Another's firewall that drops is told of with a line that mends it, and
// Docker's is opened in the place it has for that.
func TestNetworkForeignFirewall(t *testing.T) {
	for _, f := range foreignFirewalls {
		t.Run(f.name, func(t *testing.T) {
			eachNetfilter(t, func(t *testing.T, b *netBed) {
				f.load(t, b.host)
				before := f.foreignRules(t, b.host)
				must(t, b.n.Apply(t.Context(), b.want))
				obstacles, err := b.n.Obstacles(t.Context())
				must(t, err)
				var what, hints []string
				for _, o := range obstacles {
					what, hints = append(what, o.What), append(hints, o.Hint)
				}
				slices.Sort(what)
				slices.Sort(hints)
				if !slices.Equal(what, f.what) {
					t.Fatalf("Obstacles = %q, want %q", what, f.what)
				}
				if after := f.foreignRules(t, b.host); len(f.what) > 0 && before != after {
					t.Errorf("Apply changed what is not ours: %s, was %s", after, before)
				}
				b.serve()
				if len(f.what) > 0 { // and they are in the way indeed
					if strings.HasPrefix(f.what[0], "table bridge") {
						b.a.send(ether(b.b.mac, b.a.mac, typeIPv4, ipv4(protoUDP, b.a.ip, b.b.ip, udp(1, 2, bad))))
					} else {
						b.a.sendIP(protoUDP, netip.MustParseAddr(netns.Outside), udp(1, 7777, bad))
					}
				}
				f.mend(t, b.host, hints)
				if left, err := b.n.Obstacles(t.Context()); err != nil || len(left) > 0 {
					t.Errorf("Obstacles after the hint = %v, %v", left, err)
				}
				b.works()
			})
		})
	}
}

// mend does what hints, sorted, are to do.
func (f foreignFirewall) mend(t *testing.T, host *netns.NS, hints []string) {
	t.Helper()
	if f.mends == "" {
		for _, h := range hints {
			host.Output(t, "sh", "-c", h)
		}
		return
	}
	if !slices.Equal(hints, f.hints) {
		t.Errorf("the hints are %q, want %q", hints, f.hints)
	}
	host.Output(t, "sh", "-ec", f.mends)
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
	firewall("Docker", testTag).load(t, host)
	host.Output(t, "iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN") // as Docker had it before 28
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

// Two daemons have their rules in Docker's chain beside each other's and a
// user's, whom they do not touch; iptables can read them. What is lost when
// Docker writes its own anew is put back.
func TestNetworkDockerUserIsShared(t *testing.T) {
	host, _ := netns.New(t)
	docker := firewall("Docker", testTag)
	iptables := func(args ...string) string {
		return host.Output(t, append([]string{"iptables-nft"}, args...)...)
	}
	load := func() {
		iptables("-F")
		iptables("-X")
		docker.load(t, host)
		iptables("-A", "DOCKER-USER", "-i", "eth9", "-m", "comment", "--comment", "banger-abc123 is not mine", "-j", "DROP")
	}
	load()
	ours := func(tag string) string {
		return fmt.Sprintf("-A DOCKER-USER -i banger-%[1]s -m comment --comment banger-%[1]s -j ACCEPT\n"+
			"-A DOCKER-USER -o banger-%[1]s -m comment --comment banger-%[1]s -j ACCEPT\n", tag)
	}
	wants := func(when string, rules ...string) {
		t.Helper()
		want := "-N DOCKER-USER\n" + strings.Join(rules, "") + "-A DOCKER-USER -i eth9 -m comment --comment \"banger-abc123 is not mine\" -j DROP\n"
		if got := iptables("-S", "DOCKER-USER"); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", when, got, want)
		}
	}
	networks := newNetworks(t, host)
	want := func(subnet, ip string) network.Want {
		return network.Want{Subnet: netip.MustParsePrefix(subnet), Ports: []network.Port{{ID: "0000000a", IP: netip.MustParseAddr(ip), UID: 4010}}}
	}
	one, two := want("10.70.0.0/24", "10.70.0.2"), want("10.71.0.0/24", "10.71.0.2")
	must(t, networks("abc123").Apply(t.Context(), one))
	must(t, networks("abc124").Apply(t.Context(), two))
	wants("both", ours("abc124"), ours("abc123"))
	load()
	wants("Docker has begun anew")
	must(t, networks("abc124").Apply(t.Context(), two))
	must(t, networks("abc123").Apply(t.Context(), one))
	wants("both again", ours("abc123"), ours("abc124"))

	// What a user puts before ours counts, and is left.
	iptables("-I", "DOCKER-USER", "-i", netns.Uplink, "-j", "DROP")
	must(t, networks("abc123").Apply(t.Context(), one))
	found, err := networks("abc123").Obstacles(t.Context())
	if err != nil || len(found) != 1 || found[0].What != "table ip filter, chain FORWARD (a rule drops)" {
		t.Errorf("Obstacles = %v, %v", found, err)
	}
	iptables("-D", "DOCKER-USER", "-i", netns.Uplink, "-j", "DROP")

	must(t, networks("abc123").CleanUp(t.Context())) // as the next daemon after a crash
	wants("one has gone", ours("abc124"))
	must(t, networks("abc124").CleanUp(t.Context()))
	wants("both have gone")
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

// One machine behind one firewall after the other: it reaches the internet, or
// is told of with a line that lets it, whoever else writes rules meanwhile. Of
// br_netfilter nothing is needed.
func TestFirewalls(t *testing.T) {
	b := newBed(t, `memory = "96M"`)
	serveHTTP(t, b.internet, netns.Outside+":80")
	b.host.Output(t, "sh", "-c", "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 > $f")
	docker := firewall("Docker", b.paths.Tag)
	docker.load(t, b.host)
	before := docker.foreignRules(t, b.host)
	for i, name := range []string{"policy", "ufw", "firewalld", "Docker by iptables-legacy", "Docker by nftables", "Docker"} {
		unload(t, b.host)
		f := firewall(name, b.paths.Tag)
		f.load(t, b.host)
		if i == 0 { // whoever starts a machine hears of it
			b.wants(0, "web\n", "FORWARD (policy drop) keeps machines from the network; let them through with: nft insert rule ip filter FORWARD ", "vm", "create", "web")
		}
		hints := b.hintsOfStatus()
		if len(hints) != len(f.what) {
			t.Errorf("behind %s, daemon status has the lines %q", name, hints)
		}
		if len(hints) > 0 && f.mends == "" { // of the others TestNetworkForeignFirewall shows it
			b.guestCannot("web", "timeout 1 wget -qO- http://"+netns.Outside+"/")
		}
		if len(hints) > 0 {
			f.mend(t, b.host, hints)
		}
		b.reachesOutside("web", "behind "+name)
	}
	// Docker starts anew, and at last all of ours crashes.
	unload(t, b.host)
	docker.load(t, b.host)
	b.reachesOutside("web", "after Docker has written its rules anew")
	pid := b.vmmPID("web")
	b.killDaemon()
	b.kill(pid)
	b.must("vm", "list")
	if after := docker.foreignRules(t, b.host); after != before {
		t.Errorf("Docker's rules are\n%s\nwere\n%s", after, before)
	}
	unload(t, b.host)
}

// reachesOutside waits until a machine is answered from outside.
func (b *bed) reachesOutside(name, when string) {
	b.t.Helper()
	b.eventually("the machine is answered "+when, 15*time.Second, func() bool {
		out, ok := b.guest(name, "timeout 2 wget -qO- http://"+netns.Outside+"/")
		return ok && strings.Contains(out, "you are "+netns.HostAddr)
	})
}

// hintsOfStatus are the lines, sorted, that let machines through as daemon
// status has them.
func (b *bed) hintsOfStatus() (hints []string) {
	b.t.Helper()
	var st struct{ Warnings []string }
	if err := json.Unmarshal([]byte(b.must("daemon", "status", "--json")), &st); err != nil {
		b.t.Fatal(err)
	}
	for _, w := range st.Warnings {
		if _, hint, ok := strings.Cut(w, "let them through with: "); ok {
			hints = append(hints, hint)
		}
	}
	slices.Sort(hints)
	return hints
}
