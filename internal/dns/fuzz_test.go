package dns_test

import (
	"testing"

	mdns "github.com/miekg/dns"

	"banger/internal/dns"
)

// What a guest sends is answered or not, but within the bounds, and never with
// a panic.
func FuzzQuery(f *testing.F) {
	for _, q := range []*mdns.Msg{
		query("web.vm", mdns.TypeA), query("2.8.9.10.in-addr.arpa", mdns.TypePTR), query("org", mdns.TypeDS),
		query("web.vm", mdns.TypeAXFR), query(`\000.vm`, mdns.TypeA), query("example.org", mdns.TypeAAAA).SetEdns0(4096, true),
	} {
		raw, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		f.Add(raw, true)
	}
	s, _ := newServer(f, web, 1)
	f.Fuzz(func(t *testing.T, raw []byte, overTCP bool) {
		sent := s.AnswerRaw(raw, overTCP)
		if sent == nil {
			return
		}
		m := new(mdns.Msg)
		if err := m.Unpack(sent); err != nil {
			t.Fatalf("the answer to %x is no message: %v", raw, err)
		}
		if !m.Response || m.Id != uint16(raw[0])<<8|uint16(raw[1]) || !overTCP && len(sent) > dns.UDPSize || len(m.Answer) > 1 {
			t.Errorf("%x is answered\n%v", raw, m)
		}
	})
}

// What a resolver answers reaches the client as a message that it can read and
// that is as short as it asked for.
func FuzzAnswerOfResolver(f *testing.F) {
	q := query("example.org", mdns.TypeTXT)
	for _, r := range []mdns.RR{rr("example.org. 1 IN A 192.0.2.1"), rr("example.org. 1 IN TXT hello"), rr("example.org. 1 IN SOA a. b. 1 2 3 4 5"), rr("example.org. 1 IN HTTPS 1 . alpn=h2")} {
		m := new(mdns.Msg).SetReply(q)
		m.Answer = []mdns.RR{r}
		m.SetEdns0(4096, true)
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sent, err := dns.HandOn(q, raw)
		if err != nil {
			t.Fatal(err)
		}
		if m := new(mdns.Msg); sent != nil && (m.Unpack(sent) != nil || len(sent) > mdns.MinMsgSize || m.IsEdns0() != nil || m.Id != q.Id) {
			t.Errorf("%x is handed on as %x", raw, sent)
		}
	})
}
