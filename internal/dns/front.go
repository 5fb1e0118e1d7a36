package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is the longest message sent or asked for over UDP: it passes
	// every path without fragments (DNS Flag Day 2020).
	udpSize = 1232
	// idleTime is how long a TCP connection may be silent between queries.
	idleTime = 8 * time.Second
	// sendTime is how long a client may take to read an answer over TCP.
	sendTime = 2 * time.Second
)

// The bounds of a front. A query in flight costs a goroutine and at most three
// messages; a connection two goroutines and a message of 64 KiB.
const (
	maxQueries       = 512
	maxClientQueries = 64
	maxConns         = 128
	maxClientConns   = 16
)

// A front answers on one address.
type front struct {
	server  *Server
	allowed func(netip.Addr) bool
	queries *limiter
	ends    []*dns.Server
	done    chan struct{} // closed when either end does not serve any more
	once    sync.Once     // closes done
	serving sync.WaitGroup
}

// serve answers on sock, which the front has from here on, until it is closed.
func (s *Server) serve(sock sockets, allowed func(netip.Addr) bool) *front {
	f := &front{
		server: s, allowed: allowed, done: make(chan struct{}),
		queries: newLimiter(maxQueries, maxClientQueries),
	}
	ln := &listener{TCPListener: sock.tcp, allowed: allowed, conns: newLimiter(maxConns, maxClientConns)}
	f.ends = []*dns.Server{{PacketConn: sock.udp}, {Listener: ln}}
	for _, end := range f.ends {
		started := make(chan struct{})
		end.Handler, end.MsgAcceptFunc, end.UDPSize = f, accept, udpSize
		end.IdleTimeout = func() time.Duration { return idleTime }
		end.NotifyStartedFunc = func() { close(started) }
		f.serving.Go(func() { f.run(end) })
		select {
		case <-started:
		case <-f.done:
		}
	}
	return f
}

// run serves one end until it is shut down. Nothing but a fault of the host
// ends it before.
func (f *front) run(end *dns.Server) {
	if err := end.ActivateAndServe(); err != nil {
		f.server.o.Log.Error("answer names", "err", err)
	}
	f.once.Do(func() { close(f.done) })
}

// ended reports whether either end stopped by itself.
func (f *front) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// close ends the front and waits for what is being answered, which is bounded
// by answerTime and sendTime.
func (f *front) close() error {
	ended := f.ended()
	var errs []error
	for _, end := range f.ends {
		err := end.ShutdownContext(context.Background())
		if !ended { // else one of them is not there to be shut down
			errs = append(errs, err)
		}
	}
	f.serving.Wait()
	return errors.Join(errs...)
}

// accept looks at a message's header: one question, and none of the rest that
// a query does not have. Answers are not answered.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	switch opcode := int(h.Bits>>11) & 0xf; {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case opcode != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount > 1 || h.Arcount > 2:
		return dns.MsgReject // an IXFR has one SOA there (RFC 1995, section 3)
	}
	return dns.MsgAccept
}

// ServeDNS answers one query. Strangers get nothing; what is over the bounds
// is refused, so that the client turns to its other resolver at once.
func (f *front) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	client := addrOf(w.RemoteAddr())
	if !f.allowed(client) {
		return
	}
	var answer *dns.Msg
	if f.queries.acquire(client) {
		defer f.queries.release(client)
		ctx, cancel := context.WithTimeout(f.server.ctx, answerTime)
		defer cancel()
		answer = f.server.answer(ctx, query)
	} else {
		answer = reply(query, dns.RcodeRefused)
	}
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	data, err := pack(query, answer, overTCP)
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil { // the client went away, or the bridge did
		f.server.o.Log.Debug("answer a query", "client", client, "err", err)
	}
}

// pack makes answer what the client takes: an OPT record if it sent one, and
// no longer than it said.
func pack(query, answer *dns.Msg, overTCP bool) ([]byte, error) {
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = min(max(size, int(opt.UDPSize())), udpSize)
		answer.SetEdns0(udpSize, opt.Do())
	}
	if overTCP {
		size = dns.MaxMsgSize
	}
	answer.Truncate(size)
	// A resolver may have sent what the library reads but cannot write, or
	// writes such that nobody can read it.
	if data, err := answer.Pack(); err == nil && len(data) <= size && new(dns.Msg).Unpack(data) == nil {
		return data, nil
	}
	failed := reply(query, dns.RcodeServerFailure)
	if query.IsEdns0() != nil {
		failed.SetEdns0(udpSize, false)
	}
	return failed.Pack()
}

// addrOf is the address of a client.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
