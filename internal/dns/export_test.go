package dns

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// Bounds of a front, for tests.
const (
	MaxClientQueries = maxClientQueries
	MaxClientConns   = maxClientConns
	UDPSize          = udpSize
)

// ResolversOf is Resolvers with the place of systemd-resolved's file.
var ResolversOf = resolversOf

// SetPorts sets the ports of the host's resolvers and of the guests' front.
func (s *Server) SetPorts(upstream, guests uint16) { s.upstreams.port, s.guestPort = upstream, guests }

// AnswerRaw answers a message as a front does that took it from the wire: nil
// if it answers nothing.
func (s *Server) AnswerRaw(raw []byte, overTCP bool) []byte {
	f := &front{server: s, allowed: netip.Addr.IsLoopback, queries: newLimiter(1, 1)}
	query := new(dns.Msg)
	if query.Unpack(raw) != nil || accept(headerOf(raw)) != dns.MsgAccept {
		return nil
	}
	w := &recorder{from: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
	if overTCP {
		w.from = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	}
	f.ServeDNS(w, query)
	return w.sent
}

// HandOn returns what a client gets over UDP when a resolver answers raw, or
// nil if that is no message.
func HandOn(query *dns.Msg, raw []byte) ([]byte, error) {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		return nil, nil
	}
	return pack(query, handOn(query, m), false)
}

func headerOf(raw []byte) dns.Header {
	word := func(i int) uint16 { return uint16(raw[2*i])<<8 | uint16(raw[2*i+1]) }
	return dns.Header{Id: word(0), Bits: word(1), Qdcount: word(2), Ancount: word(3), Nscount: word(4), Arcount: word(5)}
}

// A recorder keeps what is sent to a client.
type recorder struct {
	dns.ResponseWriter
	from net.Addr
	sent []byte
}

func (r *recorder) RemoteAddr() net.Addr { return r.from }

func (r *recorder) Write(p []byte) (int, error) {
	r.sent = p
	return len(p), nil
}
