//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/network"
	"banger/test/netns"
)

// bad stands in every frame that should not come out anywhere.
var bad = []byte("BAD-FRAME")

// patience is how long a packet may take that takes microseconds.
const patience = 10 * time.Second

// A tapGuest is a guest that is all network interface: what it sends is made by
// hand. It answers who asks for its MAC.
type tapGuest struct {
	t       *testing.T
	ip      netip.Addr
	mac     net.HardwareAddr
	gateway net.HardwareAddr
	tap     *os.File
	got     chan []byte // all but what was asked by ARP
}

// newTapGuest opens the tap of a port.
func newTapGuest(t *testing.T, host *netns.NS, p network.Port, gateway net.HardwareAddr) *tapGuest {
	t.Helper()
	mac, err := network.MAC(p.ID)
	must(t, err)
	g := &tapGuest{t: t, ip: p.IP, mac: mac, gateway: gateway, got: make(chan []byte, 1024)}
	must(t, host.Do(func() (err error) { g.tap, err = openTap(network.TapName(testTag, p.ID)); return err }))
	done := make(chan struct{})
	go func() { defer close(done); g.read() }()
	t.Cleanup(func() { g.tap.Close(); <-done })
	return g
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = attachTap(fd, name); err == nil {
		err = unix.SetNonblock(fd, true) // after TUNSETIFF: before it, polling does not work
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func attachTap(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

func (g *tapGuest) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := g.tap.Read(buf)
		if err != nil {
			return // closed
		}
		f := bytes.Clone(buf[:n])
		switch {
		case bytes.Contains(f, bad) && parse(f).icmp != 3: // which quotes what it refuses
			g.t.Errorf("%s got a frame that should not come out:\n% x", g.ip, f)
		case len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == typeARP && f[21] == 1:
			if target, _ := netip.AddrFromSlice(f[38:42]); target == g.ip {
				asker, _ := netip.AddrFromSlice(f[28:32])
				g.send(ether(f[6:12], g.mac, typeARP, arp(2, g.mac, g.ip, f[22:28], asker)))
			}
		default:
			select {
			case g.got <- f:
			default: // nobody waits for the rest
			}
		}
	}
}

func (g *tapGuest) send(f []byte) {
	if _, err := g.tap.Write(f); err != nil {
		g.t.Errorf("%s sends: %v", g.ip, err)
	}
}

// sendIP sends a packet through the gateway.
func (g *tapGuest) sendIP(proto byte, dst netip.Addr, payload []byte) {
	g.send(ether(g.gateway, g.mac, typeIPv4, ipv4(proto, g.ip, dst, payload)))
}

// await returns the next packet that is wanted.
func (g *tapGuest) await(what string, wanted func(packet) bool) packet {
	g.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case f := <-g.got:
			if p := parse(f); wanted(p) {
				return p
			}
		case <-limit:
			g.t.Fatalf("%s got no %s", g.ip, what)
		}
	}
}

// awaitARP waits for an answer to who has ip.
func (g *tapGuest) awaitARP(ip netip.Addr) net.HardwareAddr {
	g.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case f := <-g.got:
			if len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == typeARP && f[21] == 2 && bytes.Equal(f[28:32], ip.AsSlice()) {
				return f[22:28]
			}
		case <-limit:
			g.t.Fatalf("nobody told %s who has %s", g.ip, ip)
		}
	}
}

var marks atomic.Int32

// reaches sends a datagram to another guest directly and waits until it is
// there, and so all is dealt with that g sent before: what a tap is given is
// forwarded before the write returns.
func (g *tapGuest) reaches(to *tapGuest) {
	g.t.Helper()
	mark := fmt.Appendf(nil, "mark %d", marks.Add(1))
	g.send(ether(to.mac, g.mac, typeIPv4, ipv4(protoUDP, g.ip, to.ip, udp(4000, 4001, mark))))
	to.await("datagram of another guest", func(p packet) bool {
		return p.src == g.ip && bytes.Equal(p.payload, mark)
	})
}

// awaitPort waits until the bridge takes frames from g: a tap becomes a port
// that forwards some time after it was opened, when the kernel has got round to
// telling the bridge.
func (g *tapGuest) awaitPort(to *tapGuest) {
	g.t.Helper()
	mark := fmt.Appendf(nil, "mark %d", marks.Add(1))
	limit, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case f := <-to.got:
			if bytes.Equal(parse(f).payload, mark) {
				return
			}
		case <-tick.C:
			g.send(ether(to.mac, g.mac, typeIPv4, ipv4(protoUDP, g.ip, to.ip, udp(4000, 4001, mark))))
		case <-limit:
			g.t.Fatalf("the bridge takes nothing from %s", g.ip)
		}
	}
}

// refused sends a SYN and a datagram to a port and waits until it is told that
// they are not for it.
func (g *tapGuest) refused(to netip.Addr, port uint16) {
	g.t.Helper()
	sport := uint16(10000 + marks.Add(1))
	g.sendIP(protoTCP, to, tcp(g.ip, to, sport, port, tcpSYN))
	p := g.await(fmt.Sprintf("answer to a SYN to %s:%d", to, port), func(p packet) bool {
		return p.proto == protoTCP && p.src == to && p.sport == port && p.dport == sport
	})
	if p.flags&tcpRST == 0 {
		g.t.Errorf("a SYN to %s:%d was answered with flags %#x, want a reset", to, port, p.flags)
	}
	g.sendIP(protoUDP, to, udp(sport, port, bad))
	p = g.await(fmt.Sprintf("answer to a datagram to %s:%d", to, port), func(p packet) bool { return p.proto == protoICMP })
	if p.icmp != 3 || p.code != 13 {
		g.t.Errorf("a datagram to %s:%d was answered with ICMP type %d, code %d, want administratively prohibited", to, port, p.icmp, p.code)
	}
}

// accepted sends a SYN and waits until it is accepted.
func (g *tapGuest) accepted(to netip.Addr, port uint16) {
	g.t.Helper()
	sport := uint16(10000 + marks.Add(1))
	g.sendIP(protoTCP, to, tcp(g.ip, to, sport, port, tcpSYN))
	p := g.await(fmt.Sprintf("answer to a SYN to %s:%d", to, port), func(p packet) bool {
		return p.proto == protoTCP && p.src == to && p.sport == port && p.dport == sport
	})
	if p.flags != tcpSYN|tcpACK {
		g.t.Errorf("a SYN to %s:%d was answered with flags %#x, want it accepted", to, port, p.flags)
	}
	g.sendIP(protoTCP, to, tcp(g.ip, to, sport, port, tcpRST))
}

// asks sends a datagram to a server and waits for its answer, which it returns.
func (g *tapGuest) asks(to netip.Addr, port uint16) string {
	g.t.Helper()
	sport := uint16(10000 + marks.Add(1))
	g.sendIP(protoUDP, to, udp(sport, port, []byte("who am I?")))
	return string(g.await(fmt.Sprintf("answer of %s:%d", to, port), func(p packet) bool {
		return p.proto == protoUDP && p.src == to && p.sport == port && p.dport == sport
	}).payload)
}

// serveUDP answers every datagram to addr with who sent it; what should not
// come is an error. The function returned waits for one.
func serveUDP(t *testing.T, ns *netns.NS, addr string) (await func()) {
	t.Helper()
	var conn net.PacketConn
	must(t, ns.Do(func() (err error) { conn, err = net.ListenPacket("udp4", addr); return err }))
	came, done := make(chan struct{}, 64), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			if bytes.Contains(buf[:n], bad) {
				t.Errorf("%s got a datagram from %s that should not come", addr, from)
			}
			if _, err := conn.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from); err != nil {
				t.Logf("%s answers: %v", addr, err)
			}
			came <- struct{}{}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return func() {
		t.Helper()
		select {
		case <-came:
		case <-time.After(patience):
			t.Fatalf("%s got no datagram", addr)
		}
	}
}

// serveTCP listens at addr.
func serveTCP(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	must(t, ns.Do(func() error {
		l, err := net.Listen("tcp4", addr)
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
}

// sendUDP sends a datagram from a namespace.
func sendUDP(t *testing.T, ns *netns.NS, to string, payload []byte) {
	t.Helper()
	must(t, ns.Do(func() error {
		c, err := net.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(payload)
		return err
	}))
}

// openTapAs takes a tap as a user who may do nothing else, and lets it go. The
// device that all taps come by is opened before: on some hosts, only root may.
func openTapAs(host *netns.NS, name string, uid uint32) error {
	return host.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The thread's own credentials, as the kernel has them, not the
		// process's: the thread ends with the call.
		for _, set := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, e := unix.RawSyscall(set, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				return e
			}
		}
		return attachTap(fd, name)
	})
}
