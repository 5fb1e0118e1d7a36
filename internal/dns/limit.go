package dns

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// A limiter bounds how much goes on at once, in all and for each client. It
// remembers no client for which nothing goes on.
type limiter struct {
	max, maxClient int

	mu      sync.Mutex
	all     int
	clients map[netip.Addr]int
}

func newLimiter(max, maxClient int) *limiter {
	return &limiter{max: max, maxClient: maxClient, clients: make(map[netip.Addr]int)}
}

// acquire reports whether one more may go on; if so, release ends it.
func (l *limiter) acquire(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.max || l.clients[client] >= l.maxClient {
		return false
	}
	l.all++
	l.clients[client]++
	return true
}

func (l *limiter) release(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.clients[client]--; l.clients[client] == 0 {
		delete(l.clients, client)
	}
}

// A listener hands on connections of those who are allowed, as many as its
// limiter takes, and closes others at once.
type listener struct {
	*net.TCPListener
	allowed func(netip.Addr) bool
	conns   *limiter
}

// Accept waits for the next connection that is within the bounds.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.TCPListener.AcceptTCP()
		if err != nil {
			return nil, err
		}
		client := addrOf(c.RemoteAddr())
		if l.allowed(client) && l.conns.acquire(client) {
			return &conn{TCPConn: c, release: sync.OnceFunc(func() { l.conns.release(client) })}, nil
		}
		c.Close() // it is nobody's: there is nothing to say about it
	}
}

// A conn gives up writing to a client that does not read: the library sets no
// limit there.
type conn struct {
	*net.TCPConn
	release func()
}

// Write writes within sendTime.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(p)
}

// Close may be called twice.
func (c *conn) Close() error {
	c.release()
	return c.TCPConn.Close()
}
