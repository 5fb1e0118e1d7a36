package agent

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
)

func TestSSHForwarding(t *testing.T) {
	b := newSSHBed(t)
	l := echoAtEnd(t, "tcp", "127.0.0.1:0")
	data := make([]byte, 1<<20)
	rand.Read(data)
	c := b.client("ssh", "-W", l.Addr().String(), "web.vm")
	c.Stdin = bytes.NewReader(data)
	if out, err := c.Output(); err != nil || !bytes.Equal(out, data) {
		t.Errorf("ssh -W: %d bytes of %d, %v", len(out), len(data), err)
	}
	sock := b.path("s")
	echoAtEnd(t, "unix", sock)
	client := b.login("root")
	for network, addr := range map[string]string{"tcp": l.Addr().String(), "unix": sock} {
		conn, err := client.Dial(network, addr)
		must(t, err)
		checkEcho(t, network, conn, data)
	}
	if _, err := client.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Error("reached a port where nobody listens")
	}

	// The other way: a port of the guest's.
	back, err := client.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() {
		c, err := back.Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	addr := back.Addr().String()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	checkEcho(t, "forwarded", conn, data)
	must(t, back.Close())
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the port is still open")
	}
	back, err = client.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	client.Close()
	ctx := testContext(t)
	for ctx.Err() == nil {
		if _, err := net.Dial("tcp", back.Addr().String()); err != nil {
			return
		}
	}
	t.Error("a client that is gone still has a port")
}

func checkEcho(t *testing.T, name string, c net.Conn, data []byte) {
	t.Helper()
	defer c.Close()
	go func() {
		c.Write(data)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(data), err)
	}
}
