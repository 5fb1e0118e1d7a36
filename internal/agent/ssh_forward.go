package agent

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// maxSSHListeners is how many ports of the guest a connection may have
	// forwarded to its client.
	maxSSHListeners = 32
	// firstUserPort is the lowest port that needs no privilege.
	firstUserPort = 1024
)

// directTCP joins a channel to a port that the guest can reach (ssh -L).
func (l *sshLogin) directTCP(nc ssh.NewChannel) {
	var t tcpChannel
	if err := ssh.Unmarshal(nc.ExtraData(), &t); err != nil {
		nc.Reject(ssh.ConnectionFailed, "malformed address")
		return
	}
	l.direct(nc, "tcp", net.JoinHostPort(t.Addr, strconv.FormatUint(uint64(t.Port), 10)))
}

// directUnix joins a channel to a socket of the guest's. The agent is root, and
// nobody else is to have root's way to sockets.
func (l *sshLogin) directUnix(nc ssh.NewChannel) {
	var u unixChannel
	if err := ssh.Unmarshal(nc.ExtraData(), &u); err != nil {
		nc.Reject(ssh.ConnectionFailed, "malformed path")
		return
	}
	if l.user.uid != 0 {
		nc.Reject(ssh.Prohibited, "sockets are forwarded for root alone")
		return
	}
	l.direct(nc, "unix", u.Path)
}

func (l *sshLogin) direct(nc ssh.NewChannel, network, addr string) {
	d := net.Dialer{Timeout: tunnelDial}
	c, err := d.DialContext(l.ctx, network, addr)
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		c.Close()
		return
	}
	l.join(ch, requests, c.(halfCloser)) // TCP and Unix stream sockets both are
}

// join carries what either side sends to the other, half-close included, until
// both have ended or the channel has. What the client sent before it closed the
// channel arrives.
func (l *sshLogin) join(ch ssh.Channel, requests <-chan *ssh.Request, c halfCloser) {
	defer c.Close()
	defer ch.Close()
	defer context.AfterFunc(l.ctx, func() { c.SetDeadline(time.Now().Add(sshHangUp)) })()
	go func() {
		ssh.DiscardRequests(requests)
		c.SetReadDeadline(time.Unix(1, 0)) // the client wants no more
	}()
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(c, ch)
		c.CloseWrite()
	})
	both.Go(func() {
		io.Copy(ch, c)
		ch.CloseWrite()
	})
	both.Wait()
}

// serveRequests handles what a client asks about its connection as a whole,
// until that ends.
func (l *sshLogin) serveRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		var ok bool
		var answer []byte
		switch r.Type {
		case "tcpip-forward":
			ok, answer = l.listen(r.Payload)
		case "cancel-tcpip-forward":
			ok = l.unlisten(r.Payload)
		}
		// A keepalive, too, is content with a no.
		if r.WantReply {
			r.Reply(ok, answer)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ln := range l.listeners {
		ln.Close()
	}
}

// listen makes a port of the guest one of the client's (ssh -R): on the loopback
// interface, whatever address was asked for, as sshd does by itself.
func (l *sshLogin) listen(payload []byte) (ok bool, answer []byte) {
	r, err := parseForward(payload)
	if err != nil || r.Port != 0 && r.Port < firstUserPort && l.user.uid != 0 {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.listeners) >= maxSSHListeners {
		return false, nil
	}
	ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.FormatUint(uint64(r.Port), 10)))
	if err != nil {
		return false, nil
	}
	if r.Port == 0 {
		r.Port = uint32(ln.Addr().(*net.TCPAddr).Port)
		answer = ssh.Marshal(forwardReply{r.Port})
	}
	l.listeners[r.key()] = ln
	l.work.Go(func() { l.accept(ln, r) })
	return true, answer
}

func (r forwardRequest) key() string {
	return net.JoinHostPort(r.Addr, strconv.FormatUint(uint64(r.Port), 10))
}

// unlisten ends what listen began. Connections that were made go on.
func (l *sshLogin) unlisten(payload []byte) bool {
	r, err := parseForward(payload)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, ok := l.listeners[r.key()]
	if ok {
		ln.Close()
		delete(l.listeners, r.key())
	}
	return ok
}

// accept hands the client each connection to a port of its own.
func (l *sshLogin) accept(ln net.Listener, r forwardRequest) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if !l.take() {
			c.Close()
			continue
		}
		l.work.Go(func() {
			defer l.release()
			l.forward(c.(*net.TCPConn), r)
		})
	}
}

func (l *sshLogin) forward(c *net.TCPConn, r forwardRequest) {
	from := c.RemoteAddr().(*net.TCPAddr)
	ch, requests, err := l.conn.OpenChannel("forwarded-tcpip", ssh.Marshal(tcpChannel{
		Addr: r.Addr, Port: r.Port, OriginAddr: from.IP.String(), OriginPort: uint32(from.Port),
	}))
	if err != nil {
		c.Close()
		return
	}
	l.join(ch, requests, c)
}
