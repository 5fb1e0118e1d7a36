//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/network/linux"
	"banger/internal/network/networktest"
	"banger/test/netns"
)

// inNS is a network whose calls are made in a namespace.
type inNS struct {
	ns *netns.NS
	n  network.Network
}

func (i inNS) Check(ctx context.Context) error {
	return i.ns.Do(func() error { return i.n.Check(ctx) })
}

func (i inNS) Choose(ctx context.Context) (p netip.Prefix, err error) {
	err = i.ns.Do(func() (err error) { p, err = i.n.Choose(ctx); return err })
	return p, err
}

func (i inNS) Apply(ctx context.Context, w network.Want) error {
	return i.ns.Do(func() error { return i.n.Apply(ctx, w) })
}

func (i inNS) Missing(ctx context.Context, ids []string) (missing []string, err error) {
	err = i.ns.Do(func() (err error) { missing, err = i.n.Missing(ctx, ids); return err })
	return missing, err
}

func (i inNS) Traffic(ctx context.Context, ids []string) (carried map[string]network.Traffic, err error) {
	err = i.ns.Do(func() (err error) { carried, err = i.n.Traffic(ctx, ids); return err })
	return carried, err
}

func (i inNS) Connected(ctx context.Context, addrs []netip.Addr) (found map[netip.Addr]time.Duration, err error) {
	err = i.ns.Do(func() (err error) { found, err = i.n.Connected(ctx, addrs); return err })
	return found, err
}

func (i inNS) CleanUp(ctx context.Context) error {
	return i.ns.Do(func() error { return i.n.CleanUp(ctx) })
}

func (i inNS) Obstacles(ctx context.Context) (o []network.Obstacle, err error) {
	err = i.ns.Do(func() (err error) { o, err = i.n.Obstacles(ctx); return err })
	return o, err
}

func (i inNS) Watch(ctx context.Context, gone func(string)) error {
	return i.ns.Do(func() error { return i.n.Watch(ctx, gone) })
}

// newNetworks returns what makes networks of daemons on a host.
func newNetworks(t testing.TB, host *netns.NS) func(tag string) network.Network {
	lock := filepath.Join(t.TempDir(), "lock")
	return func(tag string) network.Network {
		return inNS{host, linux.New(linux.Options{
			Tag: tag, Root: "/var/tmp/root-of-" + tag, Lock: lock, Log: slog.New(slog.DiscardHandler),
		})}
	}
}

// The real network keeps what every network promises.
func TestNetworkSuiteLinux(t *testing.T) {
	networktest.Run(t, func(t *testing.T) networktest.Harness {
		host, _ := netns.New(t)
		return networktest.Harness{
			Network:  newNetworks(t, host),
			Links:    func() []networktest.Link { return linksOf(t, host) },
			Tables:   func() []string { return tablesOf(t, host) },
			AddLink:  func(name string) { host.IP(t, "link", "add", name, "type", "bridge") },
			DelLink:  func(name string) { host.IP(t, "link", "del", name) },
			AddTable: func(name string) { host.Output(t, "nft", "add", "table", "inet", name) },
			AddRoute: func(p netip.Prefix) { host.IP(t, "route", "add", p.String(), "via", netns.InternetAddr) },
		}
	})
}

// What one start and one stop cost beside machines that run.
func BenchmarkNetworkApply(b *testing.B) {
	subnet := netip.MustParsePrefix("10.64.8.0/22")
	ports := func(n int) (ps []network.Port) {
		for i := range n {
			ip := netip.AddrFrom4([4]byte{10, 64, 8, byte(i + 2)})
			ps = append(ps, network.Port{ID: fmt.Sprintf("%08x", i), IP: ip, UID: uint32(4000 + i)})
		}
		return ps
	}
	for _, n := range []int{10, 100} {
		host, _ := netns.New(b)
		linuxNetwork := newNetworks(b, host)(testTag).(inNS).n
		apply := func(b *testing.B, n int) {
			if err := linuxNetwork.Apply(b.Context(), network.Want{Subnet: subnet, Ports: ports(n)}); err != nil {
				b.Fatal(err)
			}
		}
		run := func(name string, f func(*testing.B)) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				_ = host.Do(func() error { f(b); return nil }) // one thread for all
			})
		}
		run("again", func(b *testing.B) {
			apply(b, n)
			for b.Loop() {
				apply(b, n)
			}
		})
		run("add", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				apply(b, n-1)
				b.StartTimer()
				apply(b, n)
			}
		})
		run("remove", func(b *testing.B) { // the most of it is the kernel's, for the tap
			for b.Loop() {
				b.StopTimer()
				apply(b, n)
				b.StartTimer()
				apply(b, n-1)
			}
		})
	}
}

// What the host lacks is named, with the line that mends it.
func TestNetworkCheck(t *testing.T) {
	host, _ := netns.New(t)
	for _, tt := range []struct {
		name, hint string
		without    func() error // takes something away from the thread
	}{
		{"root", "sudo banger daemon start", func() error {
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 4000, 4000, 4000); e != 0 {
				return e
			}
			return nil
		}},
		{"taps", "modprobe tun", func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return err
			}
			return errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/dev/net", "tmpfs", 0, ""))
		}},
	} {
		n := newNetworks(t, host)(testTag).(inNS).n
		must(t, host.Do(func() error {
			if err := tt.without(); err != nil {
				return err
			}
			if err := n.Check(t.Context()); errkind.Of(err) != errkind.Host || !slices.Equal(errkind.Hints(err), []string{tt.hint}) {
				t.Errorf("without %s: Check = %v, a %s with %q, want the hint %q", tt.name, err, errkind.Of(err), errkind.Hints(err), tt.hint)
			}
			return nil
		}))
	}
}

// linksOf returns the links of a host but its loopback and its uplink.
func linksOf(t testing.TB, host *netns.NS) []networktest.Link {
	t.Helper()
	var list []struct {
		IfName   string
		IfIndex  int
		Master   string
		LinkInfo struct {
			Kind string `json:"info_kind"`
			Data struct{ User uint32 }
		}
		Addrs []struct {
			Local string
			Bits  int `json:"prefixlen"`
		} `json:"addr_info"`
	}
	out := host.IP(t, "-json", "-details", "addr", "show")
	// User stands in info_data, which bridges have too, with other content.
	out = strings.ReplaceAll(out, `"info_data"`, `"Data"`)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	links := []networktest.Link{}
	for _, l := range list {
		if l.IfName == "lo" || l.IfName == netns.Uplink {
			continue
		}
		link := networktest.Link{Name: l.IfName, Kind: l.LinkInfo.Kind, Index: l.IfIndex, Master: l.Master, UID: l.LinkInfo.Data.User}
		for _, a := range l.Addrs {
			link.Addr = netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Bits)
		}
		links = append(links, link)
	}
	slices.SortFunc(links, func(a, b networktest.Link) int { return strings.Compare(a.Name, b.Name) })
	return links
}

// tablesOf returns the names of a host's tables.
func tablesOf(t testing.TB, host *netns.NS) []string {
	t.Helper()
	names := []string{}
	for line := range strings.Lines(host.Output(t, "nft", "list", "tables")) {
		names = append(names, strings.Fields(line)[2])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
