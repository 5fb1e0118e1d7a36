// Package dns answers "<name>.vm" for the host and for guests, and forwards
// every other name to the host's own resolvers.
//
// The server keeps no records and no cache: it asks [Names] who is running.
// Queries of guests are hostile: they are parsed by the library, answered
// under a time limit, and bounded in number, for each client and in all. There
// is a front for the host, on loopback, and one for guests, on the bridge's
// address; each has bounds of its own, so that guests do not starve the host.
//
// What is answered, and how:
//
//	<name>.vm, A         the address of the machine that runs, kept for a moment
//	<name>.vm, others    no such data
//	others under .vm     no such name
//	PTR                  the machine with that address; another address of the
//	                     guests' subnet: no such name
//	names of one label   no such name, as none is public; but a top-level
//	                     domain's own records (NS, SOA, DS, DNSKEY) are forwarded
//	zone transfers, ANY  refused, as is every class but IN
//	the rest             as the host's resolvers say
//
// Server.mu is never taken while a query is answered: Close waits for those
// under it. Limiters and upstreams have locks of their own, under which nothing
// else is taken.
package dns

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// answerTime is how long the answer to one query may take, names of machines
// and resolvers of the host included. A client's own patience is about as long
// (resolv.conf(5), timeout).
const answerTime = 5 * time.Second

// Names tells which machines run. Its methods are called concurrently, with
// what strangers ask for, and must return when ctx ends.
type Names interface {
	// Lookup returns the address of the machine that runs under a name, which
	// is given without ".vm" and has the form of a machine's name.
	Lookup(ctx context.Context, name string) (netip.Addr, bool)

	// Reverse returns the name, without ".vm", of the machine that runs with an
	// address.
	Reverse(ctx context.Context, addr netip.Addr) (name string, ok bool)
}

// Options is what a Server needs. All but ResolvConf are required.
type Options struct {
	Names Names
	Log   *slog.Logger
	// ResolvConf names the host's resolvers, and is read again when it changes;
	// empty: /etc/resolv.conf.
	ResolvConf string
}

// A Server answers queries. Its methods may be called concurrently.
type Server struct {
	o         Options
	upstreams *upstreams
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	guestPort uint16                       // 53, but in tests
	subnet    atomic.Pointer[netip.Prefix] // of guests, with the bridge's address; nil: none yet

	mu     sync.Mutex
	closed bool
	local  *front // nil: not listening
	guests *front // the same
}

// errClosed is the error of what comes after Close.
var errClosed = errors.New("the DNS server is closed")

// New returns a server that listens nowhere yet.
func New(o Options) *Server {
	if o.ResolvConf == "" {
		o.ResolvConf = resolvConf
	}
	s := &Server{o: o, upstreams: &upstreams{path: o.ResolvConf, port: 53}, guestPort: 53}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends both fronts, breaks off what is being asked of resolvers, and
// waits for what is being answered. It may be called twice.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, f := range []**front{&s.local, &s.guests} {
		if *f != nil {
			errs = append(errs, (*f).close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}
