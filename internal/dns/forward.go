package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// rounds is how often resolvers that do not answer are asked, one after the
// other: a datagram may be lost.
const rounds = 2

// leastTry is the least time that a resolver gets for one answer.
const leastTry = time.Second

// forward asks the host's resolvers, one after the other, until one answers.
// If all that answer have failed themselves, the last says how; if none does,
// the answer is SERVFAIL.
func (s *Server) forward(ctx context.Context, query *dns.Msg) *dns.Msg {
	resolvers := s.upstreams.list(s.ours())
	var last *dns.Msg
	for range rounds {
		for _, r := range resolvers {
			try, cancel := context.WithTimeout(ctx, max(leastTry, answerTime/time.Duration(rounds*len(resolvers))))
			m, err := s.ask(try, r, query)
			cancel()
			switch {
			case ctx.Err() != nil:
				return reply(query, dns.RcodeServerFailure)
			case err != nil:
				s.o.Log.Debug("ask resolver", "resolver", r, "err", err)
			case failed(m.Rcode):
				last = m
			default:
				return handOn(query, m)
			}
		}
		if last != nil {
			return handOn(query, last)
		}
	}
	return reply(query, dns.RcodeServerFailure)
}

// ours reports, for an address, whether a query sent there comes back to us.
func (s *Server) ours() func(netip.Addr) bool {
	subnet := s.subnet.Load()
	return func(a netip.Addr) bool { return subnet != nil && subnet.Addr() == a }
}

// failed reports whether an answer tells of the resolver, not of the name.
func failed(rcode int) bool {
	return rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeFormatError
}

// ask asks one resolver over UDP and, where the answer was cut off, over TCP.
// If that fails, the answer is the one that was cut off.
func (s *Server) ask(ctx context.Context, resolver netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	asked := question(query)
	m, err := exchange(ctx, "udp", resolver, asked)
	if err != nil || !m.Truncated {
		return m, err
	}
	if whole, err := exchange(ctx, "tcp", resolver, asked); err == nil {
		return whole, nil
	}
	return m, nil
}

// question is what is asked of a resolver: the client's question and flags,
// and nothing else of what it sent.
func question(query *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.Question = query.Question[:1]
	m.RecursionDesired = query.RecursionDesired
	m.CheckingDisabled = query.CheckingDisabled
	m.AuthenticatedData = query.AuthenticatedData
	opt := query.IsEdns0()
	m.SetEdns0(udpSize, opt != nil && opt.Do())
	return m
}

// exchange sends one query from a port of its own and returns the answer to
// it, and to nothing else.
func exchange(ctx context.Context, network string, to netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// The library knows deadlines alone.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	client := dns.Client{Timeout: answerTime}
	m, _, err := client.ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: c})
	if err != nil {
		return nil, err
	}
	q := query.Question[0]
	if !m.Response || len(m.Question) != 1 || m.Question[0].Qtype != q.Qtype || !strings.EqualFold(m.Question[0].Name, q.Name) {
		return nil, fmt.Errorf("%s: %w", to, errOther)
	}
	return m, nil
}

var errOther = errors.New("the answer is to another question")

// handOn is a resolver's answer as the client gets it.
func handOn(query, answer *dns.Msg) *dns.Msg {
	m := reply(query, answer.Rcode)
	m.Truncated, m.AuthenticatedData = answer.Truncated, answer.AuthenticatedData
	m.Answer, m.Ns = answer.Answer, answer.Ns
	for _, rr := range answer.Extra {
		switch rr.Header().Rrtype {
		case dns.TypeOPT, dns.TypeTSIG, dns.TypeSIG: // of the way to the resolver
		default:
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}
