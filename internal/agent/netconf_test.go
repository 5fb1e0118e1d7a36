package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/test/netns"
)

// A netBed is a network namespace with two interfaces that pass for devices,
// uplink and second, a bridge, and an address and a default route on uplink that
// are not the machine's.
type netBed struct {
	*testing.T
	ns    *netns.NS
	class string // what passes for /sys/class/net
}

func newNetBed(t *testing.T) *netBed {
	if os.Geteuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	ns, _ := netns.New(t)
	b := &netBed{t, ns, t.TempDir()}
	ns.IP(t, "link", "set", "lo", "down")
	ns.IP(t, "link", "add", "bridge", "type", "bridge") // found before second
	ns.IP(t, "link", "add", "second", "type", "veth", "peer", "name", "peer")
	ns.IP(t, "link", "set", "peer", "up")
	for _, name := range []string{"bonding_masters", "bridge", "lo", "second/device", netns.Uplink + "/device"} {
		if err := os.MkdirAll(filepath.Join(b.class, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *netBed) configure(nics []wire.NIC, restored bool) error {
	return b.ns.Do(func() error { return configure(b.class, nics, restored) })
}

// ip returns what ip(8) prints, with single blanks.
func (b *netBed) ip(args string) string {
	b.Helper()
	return strings.Join(strings.Fields(b.ns.IP(b, strings.Fields(args)...)), " ")
}

func (b *netBed) mac(name string) string {
	b.Helper()
	_, after, _ := strings.Cut(b.ip("-o link show dev "+name), "link/ether ")
	mac, _, _ := strings.Cut(after, " ")
	return mac
}

// unsaid is what ip(8) says of addresses beyond what they are: the kernel may
// not have got to one yet.
var unsaid = strings.NewReplacer(" valid_lft forever preferred_lft forever", "", " tentative", "")

// state is what configure is to make so.
func (b *netBed) state() string {
	b.Helper()
	var out []string
	for _, args := range []string{
		"-4 -o addr show", "-6 -o addr show scope global", "-4 route show", "-6 route show default",
	} {
		out = append(out, unsaid.Replace(b.ip(args)))
	}
	return strings.Join(out, "\n")
}

var twoNICs = []wire.NIC{
	{MAC: "52:54:00:AB:cd:01", Addrs: []string{"10.77.0.2/22", "10.77.0.3/22"}, Gateway: "10.77.0.1"},
	{MAC: "52:54:00:ab:cd:02", Addrs: []string{"fd77::2/64", "192.0.2.9/25"}, Gateway: "fd77::1"},
}

// wantTwo is the state that they make.
const wantTwo = `1: lo inet 127.0.0.1/8 scope host lo\ ` +
	`2: uplink inet 10.77.0.2/22 brd 10.77.3.255 scope global uplink\ ` +
	`2: uplink inet 10.77.0.3/22 brd 10.77.3.255 scope global secondary uplink:1\ ` +
	`5: second inet 192.0.2.9/25 brd 192.0.2.127 scope global second\
5: second inet6 fd77::2/64 scope global \
default via 10.77.0.1 dev uplink ` +
	`10.77.0.0/22 dev uplink proto kernel scope link src 10.77.0.2 ` +
	`192.0.2.0/25 dev second proto kernel scope link src 192.0.2.9
default via fd77::1 dev second metric 1024 pref medium`

func TestConfigureRestored(t *testing.T) {
	b := newNetBed(t)
	bridge := b.mac("bridge")
	b.ip("route append default via 198.51.100.9 dev uplink") // there is one already
	call := func() {
		if err := b.configure(twoNICs, true); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wantTwo, b.state()); d != "" {
			t.Error(d)
		}
	}
	call()
	b.ip("neigh add 10.77.0.9 lladdr 52:54:00:ab:cd:09 dev uplink") // gone when that is taken down
	call()
	got := []string{
		b.mac("uplink"), b.mac("second"), b.mac("bridge"), b.ip("neigh show 10.77.0.9"),
		b.ns.Output(t, "cat", "/proc/sys/net/ipv6/conf/second/accept_dad"), // nobody asks around
	}
	want := []string{
		"52:54:00:ab:cd:01", "52:54:00:ab:cd:02", bridge, "10.77.0.9 dev uplink lladdr 52:54:00:ab:cd:09 PERMANENT", "0\n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Where the guest booted, interfaces have their addresses, in any order.
func TestConfigureBooted(t *testing.T) {
	b := newNetBed(t)
	b.ip("link set second address " + twoNICs[0].MAC)
	b.ip("link set second up")
	b.ip("-6 route add default dev second") // to no gateway
	nic := twoNICs[0]
	nic.Addrs = append(nic.Addrs, "fd77::3/64")
	if err := b.configure([]wire.NIC{nic}, false); err != nil {
		t.Fatal(err)
	}
	nic.Addrs, nic.Gateway = []string{"10.77.1.4/22", "fd77::3/64"}, "fe80::1"
	if err := b.configure([]wire.NIC{nic}, false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`5: second inet 10.77.1.4/22 brd 10.77.3.255 scope global second\`, `5: second inet6 fd77::3/64 scope global \`,
		"default via fe80::1 dev second metric 1024 pref medium",
	}
	got := []string{
		unsaid.Replace(b.ip("-4 -o addr show dev second")), unsaid.Replace(b.ip("-6 -o addr show dev second scope global")),
		b.ip("-6 route show default"),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Without a network nothing is looked for.
func TestConfigureNothing(t *testing.T) {
	b := newNetBed(t)
	before := b.state()
	b.class = filepath.Join(b.class, "missing")
	if err := b.configure(nil, true); err != nil {
		t.Error(err)
	}
	if b.ip("link show dev lo up") == "" {
		t.Error("lo is down")
	}
	if d := cmp.Diff(before, b.state()); d != "" {
		t.Error(d)
	}
}

func TestConfigureErrors(t *testing.T) {
	b := newNetBed(t)
	mac := b.mac("uplink")
	for _, tt := range []struct {
		nics     []wire.NIC
		restored bool
		want     string
	}{
		{[]wire.NIC{{MAC: "52:54:00:ab:cd"}}, true, "52:54:00:ab:cd"},
		{[]wire.NIC{{MAC: "52:54:00:ab:cd:ef:00:01"}}, true, "address 52:54:00:ab:cd:ef:00:01 is not of Ethernet"},
		{[]wire.NIC{{MAC: "01:00:5e:00:00:01"}}, true, "set address 01:00:5e:00:00:01 of uplink: " + unix.EADDRNOTAVAIL.Error()},
		{make([]wire.NIC, 3), true, "find 3 interfaces: there are 2"},
		{[]wire.NIC{{MAC: "52:54:00:00:00:00"}}, false, "find interface 52:54:00:00:00:00: " + errNoLink.Error()},
		{[]wire.NIC{{MAC: "00:00:00:00:00:00"}}, false, errNoLink.Error()}, // as lo has
		{[]wire.NIC{{MAC: "nothing"}}, false, "find interface nothing: "},
		{[]wire.NIC{{MAC: mac, Addrs: []string{"10.0.0.1"}}}, false, "address of uplink: "},
		{[]wire.NIC{{MAC: mac, Addrs: []string{"224.0.0.1/24"}}}, false, "add address 224.0.0.1/24 to uplink: " + unix.EINVAL.Error()},
		{[]wire.NIC{{MAC: mac, Addrs: []string{"ff02::1/64"}}}, false, "add address ff02::1/64 to uplink: " + unix.EADDRNOTAVAIL.Error()},
		{[]wire.NIC{{MAC: mac, Gateway: "here"}}, false, "gateway of " + mac + ": "},
		{[]wire.NIC{{MAC: mac, Gateway: "10.99.0.1"}}, false, "add route by 10.99.0.1 to uplink: " + unix.ENETUNREACH.Error()},
		{[]wire.NIC{{MAC: b.mac("second"), Gateway: netns.InternetAddr}}, false, "to second: " + unix.ENETUNREACH.Error()},
		{[]wire.NIC{{MAC: mac, Gateway: "fd99::1"}}, false, "add route by fd99::1 to uplink: " + unix.EHOSTUNREACH.Error()},
	} {
		if err := b.configure(tt.nics, tt.restored); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("configure(%+v, %v) = %v, want %q", tt.nics, tt.restored, err, tt.want)
		}
	}
	b.class = filepath.Join(b.class, "missing")
	if err := b.configure(twoNICs, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a list of interfaces: %v", err)
	}
}
