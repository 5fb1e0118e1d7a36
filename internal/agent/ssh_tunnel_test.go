package agent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/sshkey"
)

// sshTunnel returns a connection to the guest's SSH server as the daemon gets
// one.
func sshTunnel(t *testing.T, a guest.Agent) (net.Conn, error) {
	st := a.Tunnel(testContext(t))
	st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: "ssh"}})
	if _, err := st.Receive(); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := far.Read(buf)
			if err != nil {
				st.CloseRequest()
				return
			}
			st.Send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Data{Data: bytes.Clone(buf[:n])}})
		}
	}()
	go func() {
		defer far.Close()
		for {
			r, err := st.Receive()
			if err != nil || r.GetCloseWrite() {
				return
			}
			far.Write(r.GetData())
		}
	}()
	return near, nil
}

func TestSSHTunnel(t *testing.T) {
	b := newSSHBed(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0") // and then nobody
	must(t, err)
	closed.Close()
	a := dialAgent(t, ServeOptions{Bundle: b.server.s.o.Bundle, Root: b.path("root"), SSHAddr: closed.Addr().String()})
	c, err := sshTunnel(t, a)
	must(t, err)
	conn, channels, requests, err := ssh.NewClientConn(c, "web.vm", clientConfig(t, b))
	must(t, err)
	client := ssh.NewClient(conn, channels, requests)
	s, err := client.NewSession()
	must(t, err)
	if out, err := s.Output("echo through"); err != nil || string(out) != "through\n" {
		t.Errorf("%q, %v", out, err)
	}
	s, err = client.NewSession()
	must(t, err)
	out, err := s.StdoutPipe()
	must(t, err)
	must(t, s.Start("echo $$; exec sleep 300"))
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	// The tunnel's end is the command's.
	c.Close()
	waitGone(t, "a tunnel's command", pid)
}

func clientConfig(t *testing.T, b *sshBed) *ssh.ClientConfig {
	t.Helper()
	text, err := os.ReadFile(b.path("id"))
	must(t, err)
	signer, err := ssh.ParsePrivateKey(text)
	must(t, err)
	return &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(hostKeyOf(t)),
	}
}

func hostKeyOf(t *testing.T) ssh.PublicKey {
	t.Helper()
	k, err := sshkey.HostKey(testToken)
	must(t, err)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Public("")))
	must(t, err)
	return public
}

// An image's own server goes first.
func TestSSHTunnelToImagesOwn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "SSH-2.0-image\r\n")
			c.Close()
		}
	}()
	c, err := sshTunnel(t, dialAgent(t, ServeOptions{SSHAddr: l.Addr().String()}))
	must(t, err)
	if got, err := io.ReadAll(c); err != nil || string(got) != "SSH-2.0-image\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSSHTunnelWithoutKeys(t *testing.T) {
	for name, b := range map[string]wire.Bundle{
		"none":    {},
		"garbled": {SSHHostKeys: map[string]string{"ssh_host_ed25519_key": "noise"}},
		"public":  {SSHHostKeys: map[string]string{"ssh_host_ed25519_key.pub": "noise"}},
	} {
		_, err := sshTunnel(t, dialAgent(t, ServeOptions{Bundle: b, SSHAddr: "127.0.0.1:1"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}
}
