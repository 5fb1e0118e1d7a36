package transport_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type execStream = connect.BidiStreamForClient[wire.ExecRequest, wire.ExecResponse]

// begin starts a command and waits until it runs.
func begin(ctx context.Context, a guest.Agent, start *wire.ExecStart) (*execStream, error) {
	st := a.Exec(ctx)
	if err := st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, err := st.Receive()
	if err == nil && r.GetStarted() == nil {
		err = fmt.Errorf("first answer is %v", r)
	}
	return st, err
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// One connection after another on the same stream, each cut in the middle of
// a large output, with and without the guest being told: the next command
// works every time.
func TestRedial(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent=%v", silent), func(t *testing.T) {
			p := newSerialPort(t, silent)
			serveAgent(t, p)
			ctx := testContext(t)
			for i := range 12 {
				a := dial(t, p.path)
				out, exit, err := command(ctx, a, "echo", fmt.Sprint(i))
				if err != nil || exit.GetCode() != 0 || out != fmt.Sprintln(i) {
					t.Fatalf("round %d: %q, %v, %v", i, out, exit, err)
				}
				st, err := begin(ctx, a, &wire.ExecStart{Argv: []string{"head", "-c", "64000000", "/dev/zero"}, Cwd: "/"})
				if err != nil {
					t.Fatal(err)
				}
				for got := 0; got < i*80_000; {
					r, err := st.Receive()
					if err != nil {
						t.Fatal(err)
					}
					got += len(r.GetStdout())
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				// What came before the cut may still be read; then there is
				// an error, or this does not end.
				for err == nil {
					_, err = st.Receive()
				}
			}
		})
	}
}

// Hundreds of commands are followed, one floods a reader who does not read,
// and one does not read its input: the next command still answers.
func TestManyFollowers(t *testing.T) {
	p := newSerialPort(t, false)
	serveAgent(t, p)
	a := dial(t, p.path)
	defer a.Close()
	ctx := testContext(t)
	for range 300 {
		st := a.Exec(ctx)
		start := &wire.ExecStart{Argv: []string{"sleep", "1000"}, Cwd: "/"}
		if err := st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := begin(ctx, a, &wire.ExecStart{Argv: []string{"cat", "/dev/zero"}, Cwd: "/"}); err != nil {
		t.Fatal(err)
	}
	deaf, err := begin(ctx, a, &wire.ExecStart{Argv: []string{"sleep", "1000"}, Cwd: "/", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	stuffed := make(chan struct{})
	go func() {
		defer close(stuffed)
		data := &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: make([]byte, 64<<10)}}
		for deaf.Send(data) == nil {
		}
	}()
	for range 3 {
		if out, _, err := command(ctx, a, "echo", "hi"); err != nil || out != "hi\n" {
			t.Fatalf("got %q, %v", out, err)
		}
	}
	a.Close()
	<-stuffed
}

// Commands that do not read their input hold no more than their own: together
// more than the standard library promises to let a connection have.
func TestDeafCommands(t *testing.T) {
	p := newSerialPort(t, false)
	serveAgent(t, p)
	a := dial(t, p.path)
	defer a.Close()
	ctx, cancel := context.WithCancel(testContext(t))
	var stuffing sync.WaitGroup
	for range 24 { // of 256 KiB
		st, err := begin(ctx, a, &wire.ExecStart{Argv: []string{"sleep", "1000"}, Cwd: "/", Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		full := make(chan struct{})
		stuffing.Go(func() {
			defer close(full)
			data := &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: make([]byte, 64<<10)}}
			for range 16 { // the pipe, the agent's queue, and the stream's window
				if st.Send(data) != nil {
					return
				}
			}
		})
		select {
		case <-full:
		case <-time.After(20 * time.Millisecond): // it is stuck, as it should be
		}
	}
	if out, _, err := command(testContext(t), a, "echo", "hi"); err != nil || out != "hi\n" {
		t.Errorf("got %q, %v", out, err)
	}
	cancel()
	stuffing.Wait()
}

// The guest comes later than the host: the socket, then the agent.
func TestDialWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	dialled := make(chan error, 1)
	ctx := testContext(t)
	go func() {
		a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: path, Token: token})
		if err == nil {
			err = a.Close()
		}
		dialled <- err
	}()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// An agent that died took the first greeting along. The second, or two of
	// them, find one that lives.
	io.ReadFull(c, make([]byte, len(wire.Greeting(token, wire.NewNonce()))))
	serveAgent(t, c)
	if err := <-dialled; err != nil {
		t.Fatal(err)
	}
}

// A host that had to greet three times before anyone listened has one
// connection all the same.
func TestGreetingsPileUp(t *testing.T) {
	host, guestEnd := net.Pipe()
	serveAgent(t, guestEnd)
	nonce := wire.NewNonce()
	g := string(wire.Greeting(token, nonce))
	go io.WriteString(host, "junk"+g+g+g+"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	r := bufio.NewReader(host)
	echo := make([]byte, len(g))
	if _, err := io.ReadFull(r, echo); err != nil || string(echo) != g {
		t.Fatalf("echo %q, %v", echo, err)
	}
	// The next bytes are a frame: settings, on stream 0.
	head := make([]byte, 9)
	if _, err := io.ReadFull(r, head); err != nil || head[3] != 4 {
		t.Fatalf("after the echo %q, %v", head, err)
	}
	go io.Copy(io.Discard, r)
	host.Close()
}

// The agent ends or is started again: whoever waits for it is told at once.
func TestDone(t *testing.T) {
	host, guestEnd := net.Pipe()
	l := listen(t, func(c net.Conn) {
		go io.Copy(host, c)
		io.Copy(c, host)
	})
	serveAgent(t, guestEnd)
	a := dial(t, l)
	st, err := begin(testContext(t), a, &wire.ExecStart{Argv: []string{"sleep", "1000"}, Cwd: "/"})
	if err != nil {
		t.Fatal(err)
	}
	// As an agent that begins writes it, though the stream stays open.
	go guestEnd.Write(wire.Greeting(token, wire.EndNonce))
	<-a.Done()
	if r, err := st.Receive(); err == nil {
		t.Errorf("broken connection gave %v", r)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := a.Info(testContext(t), connect.NewRequest(&wire.InfoRequest{})); err == nil {
		t.Error("a closed connection answers")
	}
}

// listen serves every client of a new socket until the test ends and returns
// its path.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return path
}

// Guests that answer anything but what they should.
func TestDialRefuses(t *testing.T) {
	echo := func(c net.Conn) (nonce string) {
		b := make([]byte, len(wire.Greeting(token, wire.NewNonce())))
		io.ReadFull(c, b)
		c.Write(b)
		return string(b)
	}
	tests := []struct {
		name  string
		limit time.Duration
		serve func(net.Conn)
		want  string
		kind  errkind.Kind
	}{
		{"silent", 50 * time.Millisecond, func(c net.Conn) { io.Copy(io.Discard, c) }, "wait for agent's greeting", errkind.Timeout},
		{"hangs up", 50 * time.Millisecond, func(net.Conn) {}, "agent", errkind.Timeout},
		{"junk without end", 20 * time.Second, func(c net.Conn) {
			go io.Copy(io.Discard, c)
			io.Copy(c, rand.Reader)
		}, "something else", errkind.Internal},
		{"echo, then nothing", 200 * time.Millisecond, func(c net.Conn) {
			echo(c)
			io.Copy(io.Discard, c)
		}, "ask agent", errkind.Timeout},
		{"echo, then junk", 200 * time.Millisecond, func(c net.Conn) {
			go io.Copy(io.Discard, c)
			echo(c)
			io.Copy(c, rand.Reader)
		}, "agent", errkind.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), tt.limit)
			defer cancel()
			a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: listen(t, tt.serve), Token: token})
			if err == nil {
				a.Close()
				t.Fatal("dialled")
			}
			if !strings.Contains(err.Error(), tt.want) || errkind.Of(err) != tt.kind {
				t.Errorf("got %q of kind %s, want %q of kind %s", err, errkind.Of(err), tt.want, tt.kind)
			}
			if strings.Contains(err.Error(), token) {
				t.Errorf("%q tells the token", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one line", err)
			}
		})
	}
}

func TestDialNonsense(t *testing.T) {
	for _, e := range []guest.Endpoint{{Kind: "serial", Token: "short"}, {Kind: "pigeon", Token: token}} {
		if _, err := (transport.Dialer{}).Dial(t.Context(), e); err == nil {
			t.Errorf("dialled %q", e.Kind)
		}
	}
}

// Firecracker's socket: nobody listens at first, then a request is never
// answered (the guest's kernel may lose the refusal), then somebody listens.
func TestDialVsockUnix(t *testing.T) {
	var tries atomic.Int32
	path := listen(t, func(c net.Conn) {
		line, err := readLine(c)
		switch try := tries.Add(1); {
		case try == 2:
			readLine(c) // nothing: the end
			return
		case try < 3 || err != nil:
			return
		}
		if line != "CONNECT 5000" {
			t.Errorf("asked %q", line)
		}
		io.WriteString(c, "OK 1073741824\n")
		serveAgentOn(context.Background(), t, c)
	})
	a, err := transport.Dialer{}.Dial(testContext(t), guest.Endpoint{Kind: "vsock-unix", Path: path, Port: 5000, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if out, _, err := command(testContext(t), a, "echo", "hi"); err != nil || out != "hi\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// The token is told to nobody of whom it is not known that he is the machine.
func TestDialSomebodyElse(t *testing.T) {
	heard := make(chan string, 100)
	path := listen(t, func(c net.Conn) {
		line, _ := readLine(c) // nothing, and the end
		heard <- line
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := errors.New("the VMM has gone")
	still := func(context.Context) error {
		cancel() // it would be dialled again
		return gone
	}
	e := guest.Endpoint{Kind: "serial", Path: path, Token: token, Still: still}
	if _, err := (transport.Dialer{}).Dial(ctx, e); !errors.Is(err, gone) {
		t.Errorf("Dial = %v, want %v", err, gone)
	}
	if got := <-heard; got != "" {
		t.Errorf("it was told %q", got)
	}
}

// Without vhost-vsock there is nobody to reach; the error comes with ctx.
func TestDialVsock(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := (transport.Dialer{}).Dial(ctx, guest.Endpoint{Kind: "vsock", CID: 1<<31 - 7, Port: 1, Token: token}); err == nil || !strings.Contains(err.Error(), "vsock") {
		t.Errorf("got %v", err)
	}
}

func readLine(c net.Conn) (string, error) {
	var line []byte
	for {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil || b[0] == '\n' {
			return string(line), err
		}
		line = append(line, b[0])
	}
}
