package transport

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"banger/internal/guest/wire"
)

const (
	// maxJunk bounds what may stand before the echo, in bytes. Frames of an
	// earlier connection are at most what the port and the sockets hold: 170
	// KB were seen.
	maxJunk = 16 << 20
	// again is the time between two greetings. The first is kept until the
	// guest opens its port and nearly always does; but an agent that ends in
	// between takes it along.
	again = time.Second
)

// greet makes c begin: it returns a connection whose next byte is the first
// that the agent sent after its echo. On an error c may still be written to
// for a moment, until it is closed.
func greet(ctx context.Context, c net.Conn, token string) (*greeted, error) {
	scanner, err := wire.NewScanner(token)
	if err != nil {
		return nil, err
	}
	g := &greeted{Conn: c, scanner: scanner, nonce: wire.NewNonce(), buf: make([]byte, 64<<10)}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	said := make(chan error, 1)
	heard := make(chan struct{})
	go func() { said <- g.say(heard, token) }()
	err = g.listen()
	close(heard)
	if !stop() { // the deadline that it set is no news
		err = fmt.Errorf("wait for agent's greeting: %w", context.Cause(ctx))
	}
	if err != nil {
		c.SetDeadline(time.Unix(1, 0)) // say may be blocked
		<-said
		return nil, err
	}
	// No greeting may follow the echo. One that is being written is taken
	// in by the agent: it knows the nonce.
	if err := <-said; err != nil {
		return nil, err
	}
	return g, nil
}

// say sends the greeting, and again and again until heard is closed.
func (g *greeted) say(heard <-chan struct{}, token string) error {
	t := time.NewTicker(again)
	defer t.Stop()
	for {
		if _, err := g.Conn.Write(wire.Greeting(token, g.nonce)); err != nil {
			g.Conn.SetReadDeadline(time.Unix(1, 0)) // nobody will answer
			return fmt.Errorf("greet agent: %w", err)
		}
		select {
		case <-heard:
			return nil
		case <-t.C:
		}
	}
}

// listen drops what comes before the echo.
func (g *greeted) listen() error {
	for junk := 0; !g.begun; {
		n, err := g.fill()
		if err != nil {
			return fmt.Errorf("wait for agent's greeting: %w", err)
		}
		if junk += n; junk > maxJunk && !g.begun {
			return &finalError{fmt.Errorf("wait for agent's greeting: the guest sent %d bytes of something else", junk)}
		}
	}
	return nil
}

// A greeted connection reads what follows the echo. Another greeting is its
// end: the agent was started again, or has given the connection up, and has no
// other way to say so.
type greeted struct {
	net.Conn
	scanner *wire.Scanner
	nonce   string
	buf     []byte

	begun bool
	over  bool
	ready []byte // read and not yet given out
	lent  []byte // storage of ready

	closed atomic.Bool
	done   func() // called once, by the first Close; set before use
}

// fill reads once and returns how many bytes came.
func (g *greeted) fill() (int, error) {
	n, err := g.Conn.Read(g.buf)
	g.ready = g.lent[:0]
	g.scanner.Scan(g.buf[:n], func(b []byte) {
		if g.begun && !g.over {
			g.ready = append(g.ready, b...)
		}
	}, func(nonce string) {
		if g.begun && !g.over {
			g.over = true
			g.ready = g.ready[:len(g.ready)-min(len(g.ready), wire.GreetingHead)]
		}
		g.begun = g.begun || nonce == g.nonce
	})
	g.lent = g.ready[:0]
	return n, err
}

// Read implements net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	for len(g.ready) == 0 {
		if g.over {
			return 0, io.EOF
		}
		if _, err := g.fill(); err != nil && len(g.ready) == 0 {
			return 0, err
		}
	}
	n := copy(b, g.ready)
	g.ready = g.ready[n:]
	return n, nil
}

// Close implements net.Conn. It may be called twice.
func (g *greeted) Close() error {
	if g.closed.Swap(true) {
		return nil
	}
	err := g.Conn.Close()
	if g.done != nil {
		g.done()
	}
	return err
}
