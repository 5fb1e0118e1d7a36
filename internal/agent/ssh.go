package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// The agent's own SSH server is for images that have none, and for the time
// until the image's own listens. It can be reached through a tunnel alone.

const (
	// sshTarget is the tunnel's target that is an SSH server, whichever.
	sshTarget = "ssh"
	// sshAddr is where an image's SSH server listens.
	sshAddr = "127.0.0.1:22"
	// sshVersion is what the server calls itself. OpenSSH's client says only
	// to one of its own kind that nobody reads the output any more, on which
	// "ssh web.vm yes | head" depends (OpenSSH's PROTOCOL, 2.1).
	sshVersion = "SSH-2.0-OpenSSH_banger"
	// sshGrace bounds the time until a client has shown its key.
	sshGrace = 60 * time.Second
	// sshTries is how many keys a client may offer, as with OpenSSH.
	sshTries = 6
	// maxSSHConns is how many connections there may be at a time, and
	// maxSSHChannels how many sessions and forwarded connections on each.
	maxSSHConns    = 128
	maxSSHChannels = 128
)

// dialSSH returns a connection to the image's SSH server, or else to the
// agent's own.
func (s *Server) dialSSH(ctx context.Context) (halfCloser, error) {
	d := net.Dialer{Timeout: tunnelDial}
	c, err := d.DialContext(ctx, "tcp", s.o.SSHAddr)
	if err == nil {
		return c.(halfCloser), nil // TCP
	}
	if ctx.Err() != nil {
		return nil, err
	}
	own, err := s.ssh()
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return own.dial()
}

// An sshServer is the agent's own SSH server. It may be used concurrently.
type sshServer struct {
	s      *Server
	config *ssh.ServerConfig
	keys   []ssh.PublicKey // of the bundle: they let in anybody
	slots  chan struct{}   // holds a value for each connection
}

// newSSHServer makes the server of s from the keys in its bundle.
func newSSHServer(s *Server) (*sshServer, error) {
	d := &sshServer{s: s, slots: make(chan struct{}, maxSSHConns)}
	d.config = &ssh.ServerConfig{
		ServerVersion:     sshVersion,
		MaxAuthTries:      sshTries,
		PublicKeyCallback: d.authenticate,
	}
	hostKeys := 0
	b := s.identity.now() // nobody comes here before the machine is itself
	for _, name := range slices.Sorted(maps.Keys(b.SSHHostKeys)) {
		if strings.HasSuffix(name, ".pub") {
			continue
		}
		signer, err := ssh.ParsePrivateKey([]byte(b.SSHHostKeys[name]))
		if err != nil {
			return nil, fmt.Errorf("read SSH host key %s: %w", name, err)
		}
		d.config.AddHostKey(signer)
		hostKeys++
	}
	if hostKeys == 0 {
		return nil, errors.New("this machine was started without an SSH host key; restart it")
	}
	for _, line := range b.AuthorizedKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("read the authorised keys: %w", err)
		}
		d.keys = append(d.keys, key)
	}
	return d, nil
}

// dial returns a connection to the server.
func (d *sshServer) dial() (halfCloser, error) {
	select {
	case d.slots <- struct{}{}:
	default:
		return nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("%d SSH connections already", maxSSHConns))
	}
	ours, theirs, err := socketPair()
	if err != nil {
		<-d.slots
		return nil, connect.NewError(connect.CodeResourceExhausted, err)
	}
	p := sshPipe{ours, make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer func() { <-d.slots }()
		if err := d.serve(theirs); err != nil {
			d.s.o.Log.Debug("SSH connection", "err", err)
		}
	}()
	return p, nil
}

// sshPipe is the client's end of a connection to our own server.
type sshPipe struct {
	*net.UnixConn
	ended chan struct{} // closed when all that ran over the connection has ended
}

// Close ends the connection, and with it what ran over it.
func (p sshPipe) Close() error {
	err := p.UnixConn.Close()
	<-p.ended
	return err
}

// socketPair returns two connected sockets.
func socketPair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	conn := func(fd int) (*net.UnixConn, error) {
		f := os.NewFile(uintptr(fd), "ssh")
		defer f.Close() // FileConn has a copy
		c, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		return c.(*net.UnixConn), nil
	}
	a, err = conn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if b, err = conn(fds[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// An sshLogin is one connection of a client that has shown its key.
type sshLogin struct {
	*sshServer
	ctx   context.Context // ends with the connection
	conn  *ssh.ServerConn
	user  user
	slots chan struct{}  // holds a value for each channel
	work  sync.WaitGroup // everything that runs for the connection

	mu        sync.Mutex
	listeners map[string]net.Listener // by address and port; guarded by mu
}

// serve serves one connection to its end, and closes it. All that ran over it
// has ended then.
func (d *sshServer) serve(c net.Conn) error {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(sshGrace)); err != nil {
		return err
	}
	conn, channels, requests, err := ssh.NewServerConn(c, d.config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	u, err := lookUpUser(d.s.o.Root, conn.User())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := &sshLogin{
		sshServer: d, ctx: ctx, conn: conn, user: u,
		slots: make(chan struct{}, maxSSHChannels), listeners: make(map[string]net.Listener),
	}
	l.work.Go(func() { l.serveRequests(requests) })
	for nc := range channels {
		l.open(nc)
	}
	cancel()
	l.work.Wait()
	return nil
}

// open begins what a client wants a channel for, if it may.
func (l *sshLogin) open(nc ssh.NewChannel) {
	handle := map[string]func(ssh.NewChannel){
		"session":                        l.session,
		"direct-tcpip":                   l.directTCP,
		"direct-streamlocal@openssh.com": l.directUnix,
	}[nc.ChannelType()]
	if handle == nil {
		nc.Reject(ssh.UnknownChannelType, "not here")
		return
	}
	if !l.take() {
		nc.Reject(ssh.ResourceShortage, fmt.Sprintf("%d channels already", maxSSHChannels))
		return
	}
	l.work.Go(func() {
		defer l.release()
		handle(nc)
	})
}

// take takes one of the connection's channels, if there is one left.
func (l *sshLogin) take() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *sshLogin) release() { <-l.slots }

// start returns what runs as the user who has logged in.
func (l *sshLogin) start(argv ...string) *wire.ExecStart {
	return &wire.ExecStart{Argv: argv, User: l.conn.User(), Stdin: true}
}
