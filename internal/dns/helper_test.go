package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"banger/internal/dns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names are the machines that run.
type names map[string]netip.Addr

func (n names) Lookup(_ context.Context, name string) (netip.Addr, bool) {
	a, ok := n[name]
	return a, ok
}

func (n names) Reverse(_ context.Context, addr netip.Addr) (string, bool) {
	for name, a := range n {
		if a == addr {
			return name, true
		}
	}
	return "", false
}

var web = names{"web": netip.MustParseAddr("10.9.8.2")}

// newServer returns a server whose resolv.conf names addrs, at a port.
func newServer(t testing.TB, who dns.Names, port uint16, addrs ...string) (s *dns.Server, resolvConf string) {
	t.Helper()
	resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, resolvConf, addrs...)
	s = dns.New(dns.Options{Names: who, Log: slog.New(slog.DiscardHandler), ResolvConf: resolvConf})
	s.SetPorts(port, freePort(t))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, resolvConf
}

func writeResolvConf(t testing.TB, path string, addrs ...string) {
	t.Helper()
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// listen begins to answer the host and returns where.
func listen(t testing.TB, s *dns.Server) string {
	t.Helper()
	used, err := s.ListenLocal(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	return used.String()
}

// freePort is a port that is free for UDP and TCP on loopback, most likely.
func freePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// upstream starts a resolver at an address of loopback. Port 0 is any.
func upstream(t testing.TB, addr string, port uint16, h mdns.HandlerFunc) uint16 {
	t.Helper()
	if port == 0 {
		port = freePort(t)
	}
	at := fmt.Sprintf("%s:%d", addr, port)
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		srv := &mdns.Server{Addr: at, Net: network, Handler: h, NotifyStartedFunc: func() { close(started) }}
		failed := make(chan error, 1)
		go func() { failed <- srv.ListenAndServe() }()
		select {
		case <-started:
		case err := <-failed:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = srv.Shutdown()
			<-failed
		})
	}
	return port
}

// says returns a resolver that answers every A query with one address.
func says(addr string) mdns.HandlerFunc {
	return func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		m.Answer = []mdns.RR{rr("%s 60 IN A %s", q.Question[0].Name, addr)}
		_ = w.WriteMsg(m)
	}
}

// fails returns a resolver that answers every query with a code.
func fails(rcode int) mdns.HandlerFunc {
	return func(w mdns.ResponseWriter, q *mdns.Msg) { _ = w.WriteMsg(new(mdns.Msg).SetRcode(q, rcode)) }
}

func rr(format string, args ...any) mdns.RR {
	r, err := mdns.NewRR(fmt.Sprintf(format, args...))
	if err != nil {
		panic(err)
	}
	return r
}

func query(name string, qtype uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(mdns.Fqdn(name), qtype)
}

// ask sends a query over "udp" or "tcp" and returns the answer.
func ask(t testing.TB, network, at string, q *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: mdns.MaxMsgSize}
	m, _, err := c.Exchange(q, at)
	if err != nil {
		t.Fatalf("%s %s: %v", network, q.Question[0].String(), err)
	}
	return m
}

// addrs lists the addresses of an answer.
func addrs(m *mdns.Msg) (list []string) {
	for _, r := range m.Answer {
		if a, ok := r.(*mdns.A); ok {
			list = append(list, a.A.String())
		}
	}
	return list
}
