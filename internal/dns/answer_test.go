package dns_test

import (
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

func TestNamesOfMachines(t *testing.T) {
	port := upstream(t, "127.0.0.1", 0, says("192.0.2.1"))
	s, _ := newServer(t, web, port, "127.0.0.1")
	if err := s.ListenGuests(netip.MustParsePrefix("127.9.8.1/8")); err != nil {
		t.Fatal(err)
	}
	at := listen(t, s)
	const forwarded = "192.0.2.1"
	tests := []struct {
		name  string
		qtype uint16
		rcode int
		want  string // the end of the only answer; empty: none
		soa   string // the zone whose SOA comes with it; empty: none
	}{
		{"web.vm", mdns.TypeA, mdns.RcodeSuccess, "10.9.8.2", ""},
		{"WeB.VM", mdns.TypeA, mdns.RcodeSuccess, "10.9.8.2", ""},
		{"web.vm", mdns.TypeAAAA, mdns.RcodeSuccess, "", "vm."},
		{"web.vm", mdns.TypeHTTPS, mdns.RcodeSuccess, "", "vm."},
		{"db.vm", mdns.TypeA, mdns.RcodeNameError, "", "vm."},
		{"db.vm", mdns.TypeAAAA, mdns.RcodeNameError, "", "vm."},
		{"www.web.vm", mdns.TypeA, mdns.RcodeNameError, "", "vm."},
		{`we\.b.vm`, mdns.TypeA, mdns.RcodeNameError, "", "vm."},
		{"-.vm", mdns.TypeA, mdns.RcodeNameError, "", "vm."},
		{"vm", mdns.TypeSOA, mdns.RcodeSuccess, "hostmaster.vm. 1 3600 600 86400 1", ""},
		{"vm", mdns.TypeA, mdns.RcodeSuccess, "", "vm."},
		{"2.8.9.10.in-addr.arpa", mdns.TypePTR, mdns.RcodeSuccess, "web.vm.", ""},
		{"2.8.9.10.IN-ADDR.arpa", mdns.TypeA, mdns.RcodeSuccess, "", "8.9.10.in-addr.arpa."},
		{"7.0.0.127.in-addr.arpa", mdns.TypePTR, mdns.RcodeNameError, "", "0.0.127.in-addr.arpa."},
		{"7.2.0.192.in-addr.arpa", mdns.TypePTR, mdns.RcodeSuccess, forwarded, ""},
		{"02.8.9.10.in-addr.arpa", mdns.TypePTR, mdns.RcodeSuccess, forwarded, ""},
		{"example.org", mdns.TypeA, mdns.RcodeSuccess, forwarded, ""},
		{"example.org", mdns.TypeAXFR, mdns.RcodeRefused, "", ""},
		{"web.vm", mdns.TypeIXFR, mdns.RcodeRefused, "", ""},
		{"web.vm", mdns.TypeANY, mdns.RcodeRefused, "", ""},
		{"printer", mdns.TypeA, mdns.RcodeNameError, "", ""},
		{"printer", mdns.TypeHTTPS, mdns.RcodeNameError, "", ""},
		{"org", mdns.TypeDS, mdns.RcodeSuccess, forwarded, ""},
		{".", mdns.TypeNS, mdns.RcodeSuccess, forwarded, ""},
	}
	for _, tt := range tests {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, network, at, query(tt.name, tt.qtype))
			var got, soa string
			for _, r := range m.Answer {
				got += r.String()
			}
			for _, r := range m.Ns {
				soa += r.Header().Name
			}
			ours := len(m.Ns) > 0 || strings.HasSuffix(got, "vm.") || strings.HasSuffix(got, "10.9.8.2")
			if m.Rcode != tt.rcode || !strings.HasSuffix(got, tt.want) || (got == "") != (tt.want == "") || soa != tt.soa {
				t.Errorf("%s: %s %s:\n%v", network, tt.name, mdns.TypeToString[tt.qtype], m)
			}
			if ours && (!m.Authoritative || len(m.Answer) > 0 && m.Answer[0].Header().Ttl > 5) {
				t.Errorf("%s: %s: not ours to the full:\n%v", network, tt.name, m)
			}
		}
	}
}

// What is no plain query of class IN is refused.
func TestOddQueries(t *testing.T) {
	s, _ := newServer(t, web, 1)
	at := listen(t, s)
	chaos := query("version.bind", mdns.TypeTXT)
	chaos.Question[0].Qclass = mdns.ClassCHAOS
	notify := query("web.vm", mdns.TypeSOA)
	notify.Opcode = mdns.OpcodeNotify
	two := query("web.vm", mdns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	none := new(mdns.Msg)
	none.Id = 7
	future := query("web.vm", mdns.TypeA)
	future.SetEdns0(4096, false)
	future.IsEdns0().SetVersion(1)
	for _, tt := range []struct {
		what  string
		q     *mdns.Msg
		rcode int
	}{
		{"class CHAOS", chaos, mdns.RcodeRefused},
		{"NOTIFY", notify, mdns.RcodeNotImplemented},
		{"two questions", two, mdns.RcodeFormatError},
		{"no question", none, mdns.RcodeFormatError},
		{"EDNS of the future", future, mdns.RcodeBadVers},
	} {
		c := mdns.Client{}
		m, _, err := c.Exchange(tt.q, at)
		if err != nil || m.Rcode != tt.rcode {
			t.Errorf("%s: %v, %v", tt.what, m, err)
		}
	}
}
