package dns_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"banger/internal/dns"
	"banger/internal/errkind"
)

func TestListenLocalTakesTheNextPort(t *testing.T) {
	for _, network := range []string{"udp4", "tcp4"} {
		s, _ := newServer(t, web, 1)
		wanted := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
		take(t, network, wanted)
		used, err := s.ListenLocal(wanted)
		if err != nil || used.Port() <= wanted.Port() || used.Port() > wanted.Port()+19 {
			t.Fatalf("%s: ListenLocal = %s, %v, wanted %s", network, used, err, wanted)
		}
		if m := ask(t, "udp", used.String(), query("web.vm", mdns.TypeA)); !slices.Equal(addrs(m), []string{"10.9.8.2"}) {
			t.Errorf("the answer is\n%v", m)
		}
		if _, err := s.ListenLocal(wanted); err == nil {
			t.Error("a second ListenLocal succeeds")
		}
	}
}

func TestListenLocalOnTheLastPort(t *testing.T) {
	s, _ := newServer(t, web, 1)
	last := netip.MustParseAddrPort("127.0.0.9:65535")
	take(t, "udp4", last)
	if used, err := s.ListenLocal(last); errkind.Of(err) != errkind.Conflict {
		t.Errorf("ListenLocal = %s, %v", used, err)
	}
}

// take binds an address until the test ends.
func take(t *testing.T, network string, addr netip.AddrPort) {
	t.Helper()
	var c interface{ Close() error }
	var err error
	if network == "udp4" {
		c, err = net.ListenPacket(network, addr.String())
	} else {
		c, err = net.Listen(network, addr.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

func TestListenGuests(t *testing.T) {
	s, _ := newServer(t, web, 1)
	port := freePort(t)
	s.SetPorts(1, port)
	answers := func(addr string) bool {
		c := mdns.Client{Timeout: 200 * time.Millisecond}
		m, _, err := c.Exchange(query("web.vm", mdns.TypeA), fmt.Sprintf("%s:%d", addr, port))
		return err == nil && slices.Equal(addrs(m), []string{"10.9.8.2"})
	}
	guests := func(prefix string) {
		t.Helper()
		if err := s.ListenGuests(netip.MustParsePrefix(prefix)); err != nil {
			t.Fatalf("ListenGuests(%s) = %v", prefix, err)
		}
	}
	guests("192.0.2.1/24") // no interface has it
	guests("127.0.0.77/8")
	guests("127.0.0.77/8")
	if !answers("127.0.0.77") || answers("127.0.0.78") {
		t.Error("not answered where it should be, or elsewhere")
	}
	guests("127.0.0.78/8")
	if !answers("127.0.0.78") || answers("127.0.0.77") {
		t.Error("after a change: not answered where it should be, or elsewhere")
	}
	// The same sockets, for others.
	guests("127.0.0.78/32")
	at := fmt.Sprintf("127.0.0.78:%d", port)
	for from, want := range map[string]bool{"127.0.0.78": true, "127.0.0.66": false} {
		c := dialFrom(t, from, at)
		if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteMsg(query("web.vm", mdns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); (err == nil) != want {
			t.Errorf("%s gets %v, %v", from, m, err)
		}
	}
}

func TestGuestsPortIsTaken(t *testing.T) {
	for network, hint := range map[string]string{"udp4": "ss -lnup sport = :%d", "tcp4": "ss -lntp sport = :%d"} {
		s, _ := newServer(t, web, 1)
		port := freePort(t)
		s.SetPorts(1, port)
		if err := s.ListenGuests(netip.MustParsePrefix("127.0.0.77/8")); err != nil {
			t.Fatal(err)
		}
		take(t, network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.78"), port))
		err := s.ListenGuests(netip.MustParsePrefix("127.0.0.78/8"))
		if errkind.Of(err) != errkind.Conflict || !slices.Equal(errkind.Hints(err), []string{fmt.Sprintf(hint, port)}) {
			t.Errorf("%s: ListenGuests = %v, hints %q", network, err, errkind.Hints(err))
		}
		if m := ask(t, "udp", fmt.Sprintf("127.0.0.77:%d", port), query("web.vm", mdns.TypeA)); addrs(m) == nil {
			t.Errorf("%s: the old address is not answered any more:\n%v", network, m)
		}
	}
}

func TestClosed(t *testing.T) {
	s := dns.New(dns.Options{Names: web, Log: slog.New(slog.DiscardHandler)})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if used, err := s.ListenLocal(netip.MustParseAddrPort("127.0.0.1:0")); err == nil {
		t.Errorf("after Close: ListenLocal = %s", used)
	}
	if err := s.ListenGuests(netip.MustParsePrefix("127.0.0.77/8")); err == nil {
		t.Error("after Close: ListenGuests succeeds")
	}
}
