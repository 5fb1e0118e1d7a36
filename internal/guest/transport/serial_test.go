package transport_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/agent"
	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

const token = "0123456789abcdef0123456789abcdef"

// A serialPort behaves as QEMU's chardev socket and the guest's virtio-serial
// port behind it: one stream, which hosts come to one after the other, and
// which keeps what the last one left. It is the guest's end: Read gives 0 bytes
// and no error when there is no host.
type serialPort struct {
	net.Conn
	path   string
	silent bool // hosts come and go without the guest being told

	mu   sync.Mutex
	gone bool // to be told
}

// newSerialPort makes a port that lives as long as the test.
func newSerialPort(t *testing.T, silent bool) *serialPort {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	guestEnd, vmmEnd := fdConn(t, fds[0]), fdConn(t, fds[1])
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &serialPort{Conn: guestEnd, path: path, silent: silent}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(c, vmmEnd)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		vmmEnd.Close()
		guestEnd.Close()
		<-done
	})
	return p
}

func fdConn(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "port")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve joins one host to the guest until it goes.
func (p *serialPort) serve(host, guest net.Conn) {
	guest.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(hostWriter{host}, guest) })
	io.Copy(guest, host)
	host.Close()
	guest.SetReadDeadline(time.Unix(1, 0))
	wg.Wait()
	if !p.silent {
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
		p.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// hostWriter hides that a socket can splice, which would ignore deadlines set
// while it does.
type hostWriter struct{ io.Writer }

func (p *serialPort) Read(b []byte) (int, error) {
	for {
		n, err := p.Conn.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		p.Conn.SetReadDeadline(time.Time{})
		p.mu.Lock()
		gone := p.gone
		p.gone = false
		p.mu.Unlock()
		if gone {
			return n, nil
		}
	}
}

// serveAgent runs a real agent on c until the test ends.
func serveAgent(t *testing.T, c net.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveAgentOn(ctx, t, c)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// serveAgentOn runs a real agent on c until ctx ends or the stream.
func serveAgentOn(ctx context.Context, t *testing.T, c net.Conn) {
	s, err := agent.New(agent.ServeOptions{
		Bundle: wire.Bundle{Token: token},
		Role:   "service",
		Log:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Error(err)
		return
	}
	if err := s.ServeStream(ctx, c); err != nil && ctx.Err() == nil {
		t.Logf("agent: %v", err)
	}
}

// dial dials, or fails the test after a while.
func dial(t *testing.T, path string) guest.Agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: path, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// command runs one and returns what it printed and how it ended.
func command(ctx context.Context, a guest.Agent, argv ...string) (string, *wire.ExecExit, error) {
	st, err := begin(ctx, a, &wire.ExecStart{Argv: argv, Cwd: "/"})
	if err != nil {
		return "", nil, err
	}
	var out []byte
	for {
		r, err := st.Receive()
		if err != nil {
			return string(out), nil, err
		}
		out = append(out, r.GetStdout()...)
		if x := r.GetExit(); x != nil {
			return string(out), x, errors.Join(st.CloseRequest(), st.CloseResponse())
		}
	}
}
