package dns

import (
	"context"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"banger/internal/vm"
)

const (
	// zone holds the names of machines.
	zone = "vm."
	// ttl is how many seconds an answer about a machine may be kept: it may
	// be gone, and back with another address, at any time.
	ttl = 1
)

// answer answers one query. It never returns nil.
func (s *Server) answer(ctx context.Context, query *dns.Msg) *dns.Msg {
	if len(query.Question) != 1 {
		// The header told of one, but nothing came after it.
		return reply(query, dns.RcodeFormatError)
	}
	q := query.Question[0]
	if opt := query.IsEdns0(); opt != nil && opt.Version() != 0 {
		return reply(query, dns.RcodeBadVers)
	}
	if q.Qclass != dns.ClassINET || !plain(q.Qtype) {
		return reply(query, dns.RcodeRefused)
	}
	name := dns.CanonicalName(q.Name)
	if dns.IsSubDomain(zone, name) {
		return s.answerZone(ctx, query, name)
	}
	if addr, ok := addrOfReverse(name); ok {
		if m := s.answerReverse(ctx, query, name, addr); m != nil {
			return m
		}
	}
	if dns.CountLabel(name) == 1 && !ofTopLevel(q.Qtype) {
		return reply(query, dns.RcodeNameError)
	}
	return s.forward(ctx, query)
}

// plain reports whether a type is one that records have: the others, zone
// transfers and ANY among them, ask for more than an answer (RFC 6895, section
// 3.1: 128 to 255 are QTYPEs and meta-TYPEs, as is OPT).
func plain(qtype uint16) bool {
	return qtype != dns.TypeNone && qtype != dns.TypeOPT && (qtype < 128 || qtype > 255)
}

// ofTopLevel reports whether a top-level domain has public records of a type.
func ofTopLevel(qtype uint16) bool {
	switch qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY:
		return true
	}
	return false
}

// answerZone answers for a name in our zone, which is canonical.
func (s *Server) answerZone(ctx context.Context, query *dns.Msg, name string) *dns.Msg {
	m := reply(query, dns.RcodeSuccess)
	m.Authoritative = true
	if name == zone {
		if query.Question[0].Qtype == dns.TypeSOA {
			m.Answer = []dns.RR{soa(zone)}
		} else {
			m.Ns = []dns.RR{soa(zone)}
		}
		return m
	}
	host := strings.TrimSuffix(name, "."+zone)
	var addr netip.Addr
	known := vm.CheckName(host) == nil
	if known {
		addr, known = s.o.Names.Lookup(ctx, host)
	}
	switch {
	case !known:
		m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa(zone)}
	case query.Question[0].Qtype == dns.TypeA && addr.Is4():
		m.Answer = []dns.RR{&dns.A{Hdr: header(query.Question[0].Name, dns.TypeA), A: addr.AsSlice()}}
	default:
		m.Ns = []dns.RR{soa(zone)}
	}
	return m
}

// answerReverse answers for the name of an address, or returns nil if that is
// no machine's and not one that could be.
func (s *Server) answerReverse(ctx context.Context, query *dns.Msg, name string, addr netip.Addr) *dns.Msg {
	host, known := s.o.Names.Reverse(ctx, addr)
	if !known && !s.isGuest(addr) {
		return nil
	}
	_, parent, _ := strings.Cut(name, ".")
	m := reply(query, dns.RcodeSuccess)
	m.Authoritative = true
	switch {
	case !known:
		m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa(parent)}
	case query.Question[0].Qtype == dns.TypePTR:
		m.Answer = []dns.RR{&dns.PTR{Hdr: header(query.Question[0].Name, dns.TypePTR), Ptr: host + "." + zone}}
	default:
		m.Ns = []dns.RR{soa(parent)}
	}
	return m
}

// addrOfReverse is the IPv4 address that a canonical name under in-addr.arpa
// stands for.
func addrOfReverse(name string) (netip.Addr, bool) {
	host, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	octets := strings.Split(host, ".")
	if !ok || len(octets) != 4 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(octets[3] + "." + octets[2] + "." + octets[1] + "." + octets[0])
	return addr, err == nil && addr.Is4()
}

// reply is an answer to query without records.
func reply(query *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, rcode)
	m.RecursionAvailable = true
	m.Compress = true
	return m
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// soa says how long it may be kept that something of a zone is not there (RFC
// 2308, section 3).
func soa(of string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(of, dns.TypeSOA), Ns: "ns." + zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}
