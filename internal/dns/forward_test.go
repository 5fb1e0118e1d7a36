package dns_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"banger/internal/dns"
)

// long answers with n addresses, cut off over UDP.
func long(n int) mdns.HandlerFunc {
	return func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		for i := range n {
			m.Answer = append(m.Answer, rr("%s 60 IN A 192.0.%d.%d", q.Question[0].Name, i/250, i%250))
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(int(q.IsEdns0().UDPSize()))
		}
		_ = w.WriteMsg(m)
	}
}

func TestLongAnswers(t *testing.T) {
	port := upstream(t, "127.0.0.1", 0, long(200))
	s, _ := newServer(t, web, port, "127.0.0.1")
	at := listen(t, s)
	for _, tt := range []struct {
		network string
		edns    uint16 // 0: none
		size    int    // at most
		whole   bool
	}{
		{"udp", 0, mdns.MinMsgSize, false},
		{"udp", 100, mdns.MinMsgSize, false},
		{"udp", 1000, 1000, false},
		{"udp", 65535, dns.UDPSize, false},
		{"tcp", 0, mdns.MaxMsgSize, true},
		{"tcp", 1000, mdns.MaxMsgSize, true},
	} {
		q := query("example.org", mdns.TypeA)
		if tt.edns != 0 {
			q.SetEdns0(tt.edns, true)
		}
		m := ask(t, tt.network, at, q)
		m.Compress = true
		if m.Len() > tt.size || m.Truncated == tt.whole || (len(m.Answer) == 200) != tt.whole || len(m.Answer) == 0 {
			t.Errorf("%s, EDNS %d: %d bytes, cut off: %v, %d answers", tt.network, tt.edns, m.Len(), m.Truncated, len(m.Answer))
		}
		if opt := m.IsEdns0(); (opt != nil) != (tt.edns != 0) || opt != nil && !opt.Do() {
			t.Errorf("%s, EDNS %d: OPT %v", tt.network, tt.edns, opt)
		}
	}
}

// The flags and the question go to the resolver as they came, and the answer
// as it is; the client's options do not.
func TestForwardKeepsTheQuestion(t *testing.T) {
	asked := make(chan *mdns.Msg, 1)
	port := upstream(t, "127.0.0.1", 0, func(w mdns.ResponseWriter, q *mdns.Msg) {
		asked <- q
		m := new(mdns.Msg).SetRcode(q, mdns.RcodeNameError)
		m.AuthenticatedData = true
		m.Ns = []mdns.RR{rr("org. 60 IN SOA a. b. 1 2 3 4 5")}
		_ = w.WriteMsg(m)
	})
	s, _ := newServer(t, web, port, "127.0.0.1")
	q := query("ExAmPlE.org", mdns.TypeMX)
	q.CheckingDisabled, q.AuthenticatedData = true, true
	q.SetEdns0(4096, true)
	q.IsEdns0().Option = []mdns.EDNS0{&mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	m := ask(t, "udp", listen(t, s), q)
	up := <-asked
	opt := up.IsEdns0()
	if up.Question[0] != q.Question[0] || !up.RecursionDesired || !up.CheckingDisabled || !up.AuthenticatedData || up.Id == q.Id {
		t.Errorf("the resolver was asked\n%v", up)
	}
	if opt == nil || !opt.Do() || opt.UDPSize() != dns.UDPSize || len(opt.Option) != 0 {
		t.Errorf("the resolver was asked with OPT %v", opt)
	}
	if m.Rcode != mdns.RcodeNameError || !m.AuthenticatedData || !m.RecursionAvailable || m.Authoritative || len(m.Ns) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("the client was told\n%v", m)
	}
}

func TestNextResolver(t *testing.T) {
	silent := func(mdns.ResponseWriter, *mdns.Msg) {}
	other := func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		m.Question[0].Name = "example.com."
		m.Answer = []mdns.RR{rr("example.com. 60 IN A 192.0.2.66")}
		_ = w.WriteMsg(m)
	}
	garbage := func(w mdns.ResponseWriter, q *mdns.Msg) {
		_, _ = w.Write([]byte{byte(q.Id >> 8), byte(q.Id), 0x80, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xc0})
	}
	for _, tt := range []struct {
		what  string
		first mdns.HandlerFunc // nil: nobody is there
	}{
		{"nobody", nil},
		{"silent", silent},
		{"SERVFAIL", fails(mdns.RcodeServerFailure)},
		{"REFUSED", fails(mdns.RcodeRefused)},
		{"another question", other},
		{"garbage", garbage},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			port := upstream(t, "127.0.0.2", 0, says("192.0.2.2"))
			if tt.first != nil {
				upstream(t, "127.0.0.1", port, tt.first)
			}
			s, _ := newServer(t, web, port, "127.0.0.1", "127.0.0.2")
			if m := ask(t, "udp", listen(t, s), query("example.org", mdns.TypeA)); !slices.Equal(addrs(m), []string{"192.0.2.2"}) {
				t.Errorf("the answer is\n%v", m)
			}
		})
	}
}

func TestNoResolverAnswers(t *testing.T) {
	for _, tt := range []struct {
		what  string
		addrs []string
		rcode int
	}{
		{"none is named", nil, mdns.RcodeServerFailure},
		{"nobody is there", []string{"127.0.0.3"}, mdns.RcodeServerFailure},
		{"the last refuses", []string{"127.0.0.3", "127.0.0.1"}, mdns.RcodeRefused},
	} {
		port := upstream(t, "127.0.0.1", 0, fails(mdns.RcodeRefused))
		s, _ := newServer(t, web, port, tt.addrs...)
		if m := ask(t, "udp", listen(t, s), query("example.org", mdns.TypeA)); m.Rcode != tt.rcode {
			t.Errorf("%s:\n%v", tt.what, m)
		}
	}
}

func TestResolvConfChanges(t *testing.T) {
	port := upstream(t, "127.0.0.1", 0, says("192.0.2.1"))
	upstream(t, "127.0.0.2", port, says("192.0.2.2"))
	s, path := newServer(t, web, port, "127.0.0.1")
	at := listen(t, s)
	expect := func(want ...string) {
		t.Helper()
		if m := ask(t, "udp", at, query("example.org", mdns.TypeA)); !slices.Equal(addrs(m), want) {
			t.Errorf("the answer is %v, want %v", addrs(m), want)
		}
	}
	expect("192.0.2.1")
	writeResolvConf(t, path+".new", "127.0.0.2")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	expect("192.0.2.2")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect()
	writeResolvConf(t, path, "127.0.0.1")
	expect("192.0.2.1")
}

// A host whose resolver is the guests' front does not ask itself.
func TestOwnAddressIsNoResolver(t *testing.T) {
	s, _ := newServer(t, web, 0, "127.9.8.1")
	guests := freePort(t)
	s.SetPorts(guests, guests)
	if err := s.ListenGuests(netip.MustParsePrefix("127.9.8.1/8")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m := ask(t, "udp", listen(t, s), query("example.org", mdns.TypeA))
	if m.Rcode != mdns.RcodeServerFailure || time.Since(start) > 4*time.Second {
		t.Errorf("after %s:\n%v", time.Since(start), m)
	}
}

// Close does not wait for a resolver that does not answer.
func TestCloseBreaksOff(t *testing.T) {
	asked := make(chan struct{})
	port := upstream(t, "127.0.0.1", 0, func(mdns.ResponseWriter, *mdns.Msg) { close(asked) })
	s, _ := newServer(t, web, port, "127.0.0.1")
	at := listen(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c := mdns.Client{Net: "tcp"}
		_, _, _ = c.ExchangeContext(ctx, query("example.org", mdns.TypeA), at)
	}()
	<-asked
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("Close took %s", d)
	}
	cancel()
	<-gone
}
