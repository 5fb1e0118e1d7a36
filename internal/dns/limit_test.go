package dns_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"banger/internal/dns"
)

// slow is a Names that keeps everybody waiting but those who ask for "web".
type slow struct {
	names
	asked chan string
}

func (n slow) Lookup(ctx context.Context, name string) (netip.Addr, bool) {
	if name != "web" {
		n.asked <- name
		<-ctx.Done()
	}
	return n.names.Lookup(ctx, name)
}

// dialFrom returns a client with an address of its own.
func dialFrom(t *testing.T, from, to string) *mdns.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &mdns.Conn{Conn: c}
}

// A client that floods is refused what is over its bound; its neighbours and
// the host are answered as before.
func TestFloodOfQueries(t *testing.T) {
	who := slow{web, make(chan string)}
	s, _ := newServer(t, who, 1)
	port := freePort(t)
	s.SetPorts(1, port)
	if err := s.ListenGuests(netip.MustParsePrefix("127.0.0.77/8")); err != nil {
		t.Fatal(err)
	}
	local, guests := listen(t, s), fmt.Sprintf("127.0.0.77:%d", port)
	flood := dialFrom(t, "127.0.0.66", guests)
	for range dns.MaxClientQueries {
		if err := flood.WriteMsg(query("db.vm", mdns.TypeA)); err != nil {
			t.Fatal(err)
		}
		<-who.asked
	}
	over := func(c *mdns.Conn) int {
		t.Helper()
		if err := c.WriteMsg(query("web.vm", mdns.TypeA)); err != nil {
			t.Fatal(err)
		}
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		return m.Rcode
	}
	if got := over(flood); got != mdns.RcodeRefused {
		t.Errorf("over the bound: %s", mdns.RcodeToString[got])
	}
	if got := over(dialFrom(t, "127.0.0.67", guests)); got != mdns.RcodeSuccess {
		t.Errorf("a neighbour: %s", mdns.RcodeToString[got])
	}
	if got := over(dialFrom(t, "127.0.0.66", local)); got != mdns.RcodeSuccess {
		t.Errorf("the host: %s", mdns.RcodeToString[got])
	}
}

// Connections over the bound are closed at once, and make room when they end.
func TestFloodOfConnections(t *testing.T) {
	s, _ := newServer(t, web, 1)
	at := listen(t, s)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn) bool {
		co := mdns.Conn{Conn: c}
		if co.WriteMsg(query("web.vm", mdns.TypeA)) != nil {
			return false
		}
		m, err := co.ReadMsg()
		return err == nil && addrs(m) != nil
	}
	var held []net.Conn
	for range dns.MaxClientConns {
		c := dial()
		if !answered(c) {
			t.Fatalf("connection %d is not answered", len(held))
		}
		held = append(held, c)
	}
	if answered(dial()) {
		t.Error("a connection over the bound is answered")
	}
	for _, c := range held {
		c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); !answered(dial()); {
		if time.Now().After(deadline) {
			t.Fatal("no connection is answered after the others ended")
		}
	}
}

// A client that sends half a message, or reads nothing, does not keep Close
// waiting.
func TestCloseWithClientsThatHang(t *testing.T) {
	s, _ := newServer(t, web, 1)
	at := listen(t, s)
	half, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	deaf, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := half.Write([]byte{0, 100, 1, 2}); err != nil {
		t.Fatal(err)
	}
	q, err := query("web.vm", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deaf.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("Close took %s", d)
	}
	if n, err := io.Copy(io.Discard, half); n != 0 {
		t.Errorf("half a message got %d bytes, %v", n, err)
	}
}

// Everything at once, for the race detector and the leak check.
func TestConcurrent(t *testing.T) {
	port := upstream(t, "127.0.0.1", 0, says("192.0.2.1"))
	s, _ := newServer(t, web, port, "127.0.0.1")
	at := listen(t, s)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := mdns.Client{Net: []string{"udp", "tcp"}[i%2], Timeout: 10 * time.Second}
			for j := range 20 {
				q := query([]string{"web.vm", "example.org"}[j%2], mdns.TypeA)
				if m, _, err := c.Exchange(q, at); err != nil || len(addrs(m)) != 1 {
					t.Errorf("%v, %v", m, err)
				}
			}
		})
		wg.Go(func() {
			if err := s.ListenGuests(netip.MustParsePrefix(fmt.Sprintf("127.0.1.%d/8", i%2+1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
