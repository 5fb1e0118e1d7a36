package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"banger/internal/guest/wire"
)

// A stream is a byte stream over which one host connection follows another.
// Read may return 0 and no error: the host has gone, another may come.
type stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

const (
	// stuck is how long an HTTP/2 server may leave bytes unread. It reads at
	// once whatever its handlers do; one that does not is broken, and would
	// keep us from seeing the next greeting.
	stuck = 10 * time.Second
	// speak bounds the writing of a greeting that no host may be reading.
	speak = 5 * time.Second
)

// A pumper reads a stream, and is the only one to do so. It makes a connection
// of what stands between two greetings, and never waits for an old connection
// to end before it begins the next.
type pumper struct {
	s      *Server
	ctx    context.Context
	stream stream
	cur    *conn  // the last one begun; nil: none. Used by run alone
	finds  string // the token of the greetings that are found. Used by run alone
	conns  chan net.Conn
	calls  calls

	mu    sync.Mutex // one write at a time; guards conn.dead
	token string     // of the last greeting that was answered, which the host listens for; guarded by mu
}

// pump serves s until it or ctx ends, and closes it. It returns nil if the
// stream ended.
func (s *Server) pump(ctx context.Context, st stream) error {
	ctx, cancel := context.WithCancel(ctx)
	token := s.token()
	p := &pumper{s: s, ctx: ctx, stream: st, conns: make(chan net.Conn), finds: token, token: token}
	stop := context.AfterFunc(ctx, p.leave)
	server := s.http(ctx, p.calls.count(s.mux))
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(p) // ends by Close alone
	}()
	err := p.run()
	stop()
	cancel()
	p.end()
	err = errors.Join(err, ignoreClosed(st.Close()), server.Close())
	<-served
	if !p.calls.wait(speak) {
		s.o.Log.Warn("calls do not end", "after", speak)
	}
	return err
}

// Accept, Close and Addr make the pumper the listener of its HTTP/2 server.

func (p *pumper) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (p *pumper) Close() error   { return nil }
func (p *pumper) Addr() net.Addr { return &net.UnixAddr{Name: wire.PortName, Net: "unix"} }

func (p *pumper) run() error {
	scanner, err := wire.NewScanner(p.finds)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := p.stream.Read(buf)
		// What was read may be the greeting of a host that knows of a new
		// token by an answer that came before it was read.
		if err := p.rekey(scanner); err != nil {
			return err
		}
		scanner.Scan(buf[:n], p.data, p.greet)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == 0:
			p.end()
		}
	}
}

// rekey makes the scanner find the greetings with the token of now. The
// connection that there is goes on.
func (p *pumper) rekey(scanner *wire.Scanner) error {
	token := p.s.token()
	if token == p.finds {
		return nil
	}
	p.finds = token
	return scanner.Rekey(token, p.data)
}

// data gives bytes to the connection they belong to. Without one they are what
// an earlier host left, and dropped.
func (p *pumper) data(b []byte) {
	if p.cur == nil {
		return
	}
	p.cur.in.SetWriteDeadline(time.Now().Add(stuck))
	if _, err := p.cur.in.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
		p.s.o.Log.Error("connection does not read", "for", stuck)
		p.end()
	}
}

// greet ends the connection there was and begins the one that nonce asks for.
func (p *pumper) greet(nonce string) {
	if p.cur != nil && p.cur.nonce == nonce {
		return // sent again by a host that had no answer yet
	}
	p.end()
	if nonce == wire.EndNonce {
		return
	}
	p.mu.Lock()
	p.token = p.finds
	err := p.say(nonce, speak)
	p.mu.Unlock()
	if err != nil {
		p.s.o.Log.Debug("greeting not answered", "err", err)
		return
	}
	server, in := net.Pipe()
	c := &conn{Conn: server, p: p, nonce: nonce, in: in, r: bufio.NewReaderSize(server, 64<<10)}
	p.cur = c
	select {
	case p.conns <- c:
	case <-p.ctx.Done():
	}
}

// end ends the current connection, if there is one: its reader sees the end of
// the stream, and nothing more of it is written.
func (p *pumper) end() {
	c := p.cur
	if c == nil {
		return
	}
	p.cur = nil
	p.stream.SetWriteDeadline(time.Unix(1, 0)) // a write may be blocked, for nobody reads
	p.mu.Lock()
	c.dead = true
	p.stream.SetWriteDeadline(time.Time{})
	p.mu.Unlock()
	c.in.Close()
}

// leave tells the host, if one listens, that no more will come, and closes the
// stream.
func (p *pumper) leave() {
	p.stream.SetWriteDeadline(time.Unix(1, 0))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say(wire.EndNonce, speak/50) // nobody may be there to hear it
	p.stream.Close()
}

// say writes a greeting. Preconditions: p.mu is held.
func (p *pumper) say(nonce string, limit time.Duration) error {
	p.stream.SetWriteDeadline(time.Now().Add(limit))
	defer p.stream.SetWriteDeadline(time.Time{})
	_, err := p.stream.Write(wire.Greeting(p.token, nonce))
	return err
}

// A conn is one host connection on a stream that others had before it and will
// have after it. What the host sends comes through a pipe, whose deadlines for
// reading work; those for writing are the pumper's.
type conn struct {
	net.Conn // the server's end of the pipe
	r        *bufio.Reader
	in       net.Conn // the pumper's end
	p        *pumper
	nonce    string
	dead     bool // guarded by p.mu
}

func (c *conn) Read(b []byte) (int, error) { return c.r.Read(b) }

func (c *conn) Write(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.dead {
		return 0, net.ErrClosed
	}
	return c.p.stream.Write(b)
}

// Close ends the connection from this side. The host cannot see that, so it
// is told.
func (c *conn) Close() error {
	c.p.mu.Lock()
	if !c.dead && c.p.ctx.Err() == nil {
		if err := c.p.say(wire.EndNonce, speak/5); err != nil {
			c.p.s.o.Log.Debug("end not told", "err", err)
		}
	}
	c.dead = true
	c.p.mu.Unlock()
	return c.Conn.Close()
}

func (c *conn) SetDeadline(t time.Time) error    { return c.Conn.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
