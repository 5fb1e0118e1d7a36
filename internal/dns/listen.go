package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"banger/internal/errkind"
)

// DefaultPort is where the host finds names of machines, on 127.0.0.1.
const DefaultPort = 42069

// localPorts is how many ports in a row are tried for the host's front.
const localPorts = 20

// ListenLocal begins to answer the host, over UDP and TCP, on addr or, where
// its port is taken, the next free one of the 19 above it, and returns which.
// Port 0 is any free one. Only clients on loopback are answered. It may be
// called once. On error nothing is left open.
func (s *Server) ListenLocal(addr netip.AddrPort) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return netip.AddrPort{}, errClosed
	}
	if s.local != nil {
		return netip.AddrPort{}, errors.New("names are answered on loopback already")
	}
	sock, err := listenFrom(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("answer names on %s: %w", addr, err)
	}
	used := sock.addr()
	if addr.Port() != 0 && used != addr {
		s.o.Log.Warn("port for names is taken; using another", "wanted", addr, "used", used)
	}
	s.local = s.serve(sock, netip.Addr.IsLoopback)
	return used, nil
}

// listenFrom binds addr or the next free port after it.
func listenFrom(addr netip.AddrPort) (sockets, error) {
	var first error // tells of the port that was wanted
	for i := range localPorts {
		try := addr
		if addr.Port() != 0 {
			try = netip.AddrPortFrom(addr.Addr(), addr.Port()+uint16(i))
		}
		if try.Port() < addr.Port() {
			break // there are no more ports
		}
		sock, err := bind(try, false)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return sock, err
		}
		if first == nil {
			first = err
		}
	}
	return sockets{}, first
}

// ListenGuests begins to answer guests, over UDP and TCP, on port 53 of
// bridge's address, which may not exist yet. Only clients in bridge's subnet
// are answered. It may be called again: what listened for another address ends
// once this one listens; for the same address nothing happens. A port that is
// taken is an error of kind [errkind.Conflict] that tells how to find who has
// it. On error all is as before.
func (s *Server) ListenGuests(bridge netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.guests != nil && !s.guests.ended() && s.subnet.Load().Addr() == bridge.Addr() {
		s.subnet.Store(&bridge)
		return nil
	}
	old := s.guests
	if old != nil && old.ended() {
		// Its sockets may still have the address.
		if err := old.close(); err != nil {
			s.o.Log.Debug("close the guests' front", "err", err)
		}
		old, s.guests = nil, nil
	}
	sock, err := bind(netip.AddrPortFrom(bridge.Addr(), s.guestPort), true)
	if err != nil {
		return fmt.Errorf("answer guests' names on %s: %w", bridge.Addr(), err)
	}
	s.subnet.Store(&bridge)
	s.guests = s.serve(sock, s.isGuest)
	if old != nil {
		return old.close()
	}
	return nil
}

// isGuest reports whether an address is of the guests' subnet.
func (s *Server) isGuest(a netip.Addr) bool {
	subnet := s.subnet.Load()
	return subnet != nil && subnet.Contains(a)
}

// sockets are the two ends of one address.
type sockets struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

func (s sockets) addr() netip.AddrPort {
	return s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// bind binds UDP and TCP of one address; free: also if no interface has it. A
// port that is taken is an error of kind [errkind.Conflict] with a hint.
func bind(addr netip.AddrPort, free bool) (s sockets, err error) {
	var lc net.ListenConfig
	if free {
		lc.Control = freeBind
	}
	u, err := lc.ListenPacket(context.Background(), "udp4", addr.String())
	if err != nil {
		return s, taken(err, "u", addr.Port())
	}
	s.udp = u.(*net.UDPConn)
	l, err := lc.Listen(context.Background(), "tcp4", s.addr().String())
	if err != nil {
		return s, errors.Join(taken(err, "t", addr.Port()), u.Close())
	}
	s.tcp = l.(*net.TCPListener)
	return s, nil
}

// taken makes err tell who has the port, if that is what it is about; proto is
// ss(8)'s letter for the protocol.
func taken(err error, proto string, port uint16) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return errkind.WithHint(errkind.Wrap(errkind.Conflict, err), fmt.Sprintf("ss -ln%sp sport = :%d", proto, port))
}

// freeBind lets a socket have an address that the host does not (ip(7),
// IP_FREEBIND): the bridge comes with the first machine and goes with the last.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_FREEBIND, 1)
	})
	return errors.Join(cerr, err)
}
