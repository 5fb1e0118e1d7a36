package linux

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

func TestMarks(t *testing.T) {
	if got := bridgeMAC("abc123").String(); got != "02:bb:00:ab:c1:23" {
		t.Errorf("bridgeMAC = %s", got)
	}
	if got := alias("/" + strings.Repeat("x", 500)); len(got) != 255 {
		t.Errorf("an alias has %d bytes, more than the kernel takes", len(got))
	}
}

func TestUplinks(t *testing.T) {
	links := map[string]netlink.Link{}
	for i, name := range []string{"lo", "eth0", "wlan0", "tun0"} {
		links[name] = &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: i + 1}}
	}
	to := func(dst string, index int) netlink.Route {
		r := netlink.Route{LinkIndex: index, Type: unix.RTN_UNICAST}
		if _, n, err := net.ParseCIDR(dst); err == nil {
			r.Dst = n
		}
		return r
	}
	multi := to("", 0)
	multi.MultiPath = []*netlink.NexthopInfo{{LinkIndex: 2}, {LinkIndex: 3}}
	unreachable := to("0.0.0.0/0", 3)
	unreachable.Type = unix.RTN_UNREACHABLE
	for _, tt := range []struct {
		name   string
		routes []netlink.Route
		want   []string
	}{
		{"none", nil, nil},
		{"only others", []netlink.Route{to("10.0.0.0/8", 2), unreachable}, nil},
		{"one", []netlink.Route{to("0.0.0.0/0", 2), to("10.0.0.0/8", 3)}, []string{"eth0"}},
		{"without a destination", []netlink.Route{to("", 3)}, []string{"wlan0"}},
		{"of two tables", []netlink.Route{to("0.0.0.0/0", 3), to("0.0.0.0/0", 2), to("0.0.0.0/0", 3)}, []string{"eth0", "wlan0"}},
		{"several hops", []netlink.Route{multi}, []string{"eth0", "wlan0"}},
		{"halves", []netlink.Route{to("0.0.0.0/1", 4), to("128.0.0.0/1", 4)}, []string{"tun0"}},
		{"a link that has gone", []netlink.Route{to("0.0.0.0/0", 9)}, nil},
		{"loopback", []netlink.Route{to("0.0.0.0/0", 1)}, nil},
	} {
		if got := uplinks(tt.routes, links); !slices.Equal(got, tt.want) {
			t.Errorf("%s: uplinks = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCollisionText(t *testing.T) {
	n := New(Options{Tag: "abc123", Log: slog.New(slog.DiscardHandler)})
	links := map[string]netlink.Link{
		"eth0":          &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: 2}},
		"banger-abc123": &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "banger-abc123", Index: 3}},
	}
	_, dst, err := net.ParseCIDR("10.64.0.0/12")
	if err != nil {
		t.Fatal(err)
	}
	route := netlink.Route{Dst: dst, LinkIndex: 2, Type: unix.RTN_UNICAST, Gw: net.ParseIP("192.168.1.1")}
	subnet := netip.MustParsePrefix("10.64.8.0/22")
	if got, want := n.collision(links, []netlink.Route{route}, subnet), "10.64.0.0/12 via 192.168.1.1 dev eth0"; got != want {
		t.Errorf("collision = %q, want %q", got, want)
	}
	route.LinkIndex = 3
	if got := n.collision(links, []netlink.Route{route}, subnet); got != "" {
		t.Errorf("the bridge collides with itself: %q", got)
	}
	route.LinkIndex, route.Type = 2, unix.RTN_BROADCAST
	if got := n.collision(links, []netlink.Route{route}, subnet); got != "" {
		t.Errorf("a broadcast collides: %q", got)
	}
}

// Each kind of firewall gets the line of the tool that made it.
func TestHints(t *testing.T) {
	n := New(Options{Tag: "abc123", Log: slog.New(slog.DiscardHandler)})
	base := func(family nftables.TableFamily, table, name string, hook *nftables.ChainHook) *nftables.Chain {
		return &nftables.Chain{Table: &nftables.Table{Family: family, Name: table}, Name: name, Hooknum: hook}
	}
	in, fwd := nftables.ChainHookInput, nftables.ChainHookForward
	ufw := base(nftables.TableFamilyIPv4, "filter", "ufw-before-forward", nil)
	for _, tt := range []struct {
		chain *nftables.Chain
		more  []*nftables.Chain
		want  string
	}{
		{base(nftables.TableFamilyINet, "mine", "input", in), nil, `nft insert rule inet mine input iifname "banger-abc123" accept`},
		{base(nftables.TableFamilyBridge, "mine", "input", in), nil, `nft insert rule bridge mine input iifname "babc123*" accept`},
		{base(nftables.TableFamilyINet, "firewalld", "filter_FORWARD", fwd), nil, "firewall-cmd --zone=trusted --add-interface=banger-abc123 && firewall-cmd --permanent --zone=trusted --add-interface=banger-abc123"},
		{base(nftables.TableFamilyIPv4, "filter", "FORWARD", fwd), []*nftables.Chain{ufw}, "ufw route allow in on banger-abc123 && ufw route allow out on banger-abc123"},
		{base(nftables.TableFamilyIPv4, "filter", "INPUT", in), []*nftables.Chain{ufw}, "ufw allow in on banger-abc123"},
		{base(nftables.TableFamilyINet, "mine", "input", in), []*nftables.Chain{ufw}, `nft insert rule inet mine input iifname "banger-abc123" accept`},
	} {
		if got := n.hint(tt.chain, append(tt.more, tt.chain)); got != tt.want {
			t.Errorf("hint = %q, want %q", got, tt.want)
		}
	}
}

// An address is connected if it is an end of an established TCP connection; the
// one that carried something last tells for how long it was quiet.
func TestConnected(t *testing.T) {
	guest, other := netip.MustParseAddr("10.64.8.2"), netip.MustParseAddr("10.64.8.3")
	flow := func(state uint8, left uint32, src, dst, answers string) *netlink.ConntrackFlow {
		return &netlink.ConntrackFlow{
			Forward:   netlink.IPTuple{SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4()},
			Reverse:   netlink.IPTuple{SrcIP: net.ParseIP(answers).To4()},
			ProtoInfo: &netlink.ProtoInfoTCP{State: state}, TimeOut: left,
		}
	}
	const outside, host = "203.0.113.7", "198.51.100.2"
	udp := flow(3, 90, guest.String(), outside, outside)
	udp.ProtoInfo = nil
	for _, tt := range []struct {
		name  string
		flows []*netlink.ConntrackFlow
		quiet time.Duration // negative: not connected
	}{
		{"none", nil, -1},
		{"from it", []*netlink.ConntrackFlow{flow(3, 90, guest.String(), outside, outside)}, 10 * time.Second},
		{"to it", []*netlink.ConntrackFlow{flow(3, 90, outside, guest.String(), guest.String())}, 10 * time.Second},
		{"led to it", []*netlink.ConntrackFlow{flow(3, 100, outside, host, guest.String())}, 0},
		{"two", []*netlink.ConntrackFlow{flow(3, 10, outside, guest.String(), guest.String()), flow(3, 70, outside, guest.String(), guest.String()), flow(3, 60, outside, guest.String(), guest.String())}, 30 * time.Second},
		{"longer than followed", []*netlink.ConntrackFlow{flow(3, 300, outside, guest.String(), guest.String())}, 0},
		{"begun and ended", []*netlink.ConntrackFlow{flow(1, 90, outside, guest.String(), guest.String()), flow(7, 90, outside, guest.String(), guest.String())}, -1},
		{"another's", []*netlink.ConntrackFlow{flow(3, 90, outside, "10.64.8.4", "10.64.8.4")}, -1},
		{"UDP", []*netlink.ConntrackFlow{udp}, -1},
	} {
		want := map[netip.Addr]time.Duration{}
		if tt.quiet >= 0 {
			want[guest] = tt.quiet
		}
		if got := connected(tt.flows, []netip.Addr{guest, other}, 100*time.Second); !maps.Equal(got, want) {
			t.Errorf("%s: connected = %v, want %v", tt.name, got, want)
		}
	}
}

// Who waits for the lock waits no longer than it is asked to.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockHost(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := lockHost(ctx, path)
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("lockHost = %v, want that it was cancelled", err)
	}
	go func() {
		again, err := lockHost(t.Context(), path)
		if err == nil {
			again()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Errorf("lockHost after the other = %v", err)
	}
	if _, err := lockHost(t.Context(), filepath.Join(path, "below a file")); err == nil {
		t.Error("a lock that cannot be was taken")
	}
}

func TestHostLacks(t *testing.T) {
	err := hostLacks(unix.EOPNOTSUPP, "bridge")
	if errkind.Of(err) != errkind.Host || !slices.Equal(errkind.Hints(err), []string{"modprobe bridge"}) {
		t.Errorf("hostLacks = %v, a %s with %q", err, errkind.Of(err), errkind.Hints(err))
	}
	if err := hostLacks(unix.EPERM, "bridge"); errkind.Of(err) != errkind.Host || len(errkind.Hints(err)) > 0 {
		t.Errorf("hostLacks of a refusal = %v, a %s with %q", err, errkind.Of(err), errkind.Hints(err))
	}
	if err := hostLacks(unix.EINVAL, "bridge"); errkind.Of(err) != errkind.Internal {
		t.Errorf("hostLacks of our own fault = %v, a %s", err, errkind.Of(err))
	}
}
