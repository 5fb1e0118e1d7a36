package agent

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// echoAtEnd answers each client, once it has sent everything, with all of it.
func echoAtEnd(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
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
				data, _ := io.ReadAll(c)
				c.Write(data)
			}()
		}
	}()
	return l
}

func TestTunnel(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	tcp := echoAtEnd(t, "tcp", "127.0.0.1:0")
	unixPath := filepath.Join(t.TempDir(), "s")
	echoAtEnd(t, "unix", unixPath)
	data := make([]byte, 2<<20+5)
	rand.Read(data)
	for _, target := range []string{"tcp:" + tcp.Addr().String(), "unix:" + unixPath} {
		st := a.Tunnel(testContext(t))
		if err := st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: target}}); err != nil {
			t.Fatal(err)
		}
		if r, err := st.Receive(); err != nil || !r.GetConnected() {
			t.Fatalf("%s: %v, %v", target, r, err)
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 60_000)
			if err := st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Data{Data: rest[:n]}}); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_CloseWrite{CloseWrite: true}})
		var got []byte
		closed := false
		for {
			r, err := st.Receive()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.GetData()...)
			closed = closed || r.GetCloseWrite()
		}
		if !bytes.Equal(got, data) || !closed {
			t.Errorf("%s: %d bytes of %d, closed %v", target, len(got), len(data), closed)
		}
	}
}

func TestTunnelErrors(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	for target, want := range map[string]connect.Code{
		"":                                 connect.CodeInvalidArgument,
		"udp:127.0.0.1:53":                 connect.CodeInvalidArgument,
		"tcp:":                             connect.CodeInvalidArgument,
		"tcp:127.0.0.1":                    connect.CodeUnavailable,
		"unix:/no/such":                    connect.CodeUnavailable,
		"unix:" + strings.Repeat("x", 200): connect.CodeUnavailable,
	} {
		st := a.Tunnel(testContext(t))
		st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: target}})
		if _, err := st.Receive(); connect.CodeOf(err) != want {
			t.Errorf("%q: %v, want %v", target, err, want)
		}
	}
}

// A client that goes ends the connection in the guest.
func TestTunnelBroken(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	st := a.Tunnel(testContext(t))
	st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: "tcp:" + l.Addr().String()}})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := st.Receive(); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}
