package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// ServeOptions are what the agent's service needs to know. The zero values of
// fields that are not required mean the real thing.
type ServeOptions struct {
	Bundle wire.Bundle  // its token is required; a template's becomes a machine's by Identify
	Role   string       // "service" or "init"; for Info
	Log    *slog.Logger // required
	Root   string       // the root of the guest's account files; empty: "/". For tests
	// SSHAddr is where the image's SSH server listens, if it has one; empty:
	// port 22 of the loopback interface. For tests
	SSHAddr string
	// Power ends the machine: it reboots or powers off. It is called once,
	// in a goroutine of its own, after the disks are synced and the answer
	// has had time to leave. Nil: ask the guest's init, see endMachine.
	Power func(reboot bool)
	// Sync puts on the disks what was written. Nil: sync(2). For tests, whose
	// disks are the host's.
	Sync func()
	// AnswerTime is what the answer to a request to end gets to leave; 0: what
	// it needs on a real port.
	AnswerTime time.Duration
	// SetClock sets the guest's clock. Nil: clock_settime(2). For tests, whose
	// clock is the host's.
	SetClock func(time.Time) error
	// System is what Settle, Identify and Finish act on. Nil: the guest that
	// the agent runs in. For tests, whose guest is the host
	System System
	// SessionDir and SessionRun are where sessions and their sockets are;
	// empty: /root/.local/state/banger/sessions and /run/banger/sessions. For
	// tests
	SessionDir, SessionRun string
}

// A Server is the agent's service without the byte stream that it is reached
// over. Its methods may be called concurrently.
type Server struct {
	o        ServeOptions // but for its bundle, which may be the template's
	mux      *http.ServeMux
	spawn    spawner
	power    powerOnce
	identity *identity
	hurry    hurry

	sessions *sessions
	ssh      func() (*sshServer, error) // the agent's own, made when it is first needed
}

// New returns a server. It fails if the token has not the form that greetings
// need, with [wire.ErrToken].
func New(o ServeOptions) (*Server, error) {
	if _, err := wire.NewScanner(o.Bundle.Token); err != nil {
		return nil, err
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if o.SSHAddr == "" {
		o.SSHAddr = sshAddr
	}
	if o.Power == nil {
		o.Power = endMachine(o.Log)
	}
	if o.Sync == nil {
		o.Sync = unix.Sync
	}
	if o.SetClock == nil {
		o.SetClock = setClock
	}
	if o.AnswerTime == 0 {
		o.AnswerTime = answerTime
	}
	s := &Server{o: o, mux: http.NewServeMux(), spawn: newSpawner(), identity: newIdentity(o.Bundle)}
	if s.o.System == nil {
		s.o.System = newGuestSystem(s.spawn)
	}
	s.sessions = &sessions{
		dir: cmp.Or(o.SessionDir, sessionDir), run: cmp.Or(o.SessionRun, sessionRun),
		log: o.Log, spawn: s.spawn,
	}
	s.ssh = sync.OnceValues(func() (*sshServer, error) { return newSSHServer(s) })
	s.mux.Handle(wire.NewAgentServiceHandler(service{s},
		connect.WithInterceptors(gate{s.identity}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompression("gzip", nil, nil))) // a byte stream in memory gains nothing
	return s, nil
}

// maxMessage bounds one message of a client, in bytes; chunk is how much data
// the agent puts in one of its own.
const (
	maxMessage = 1 << 20
	chunk      = 64 << 10 // a full pipe
)

// service holds the methods of the protocol, apart from those of Server.
type service struct{ *Server }

// token is what whoever connects from now on must greet with.
func (s *Server) token() string { return s.identity.now().Token }

// Handler returns the service as it is reached over HTTP/2 with prior
// knowledge, for tests that bring their own connections.
func (s *Server) Handler() http.Handler { return s.mux }

// ServeStream serves one byte stream that ends by itself, such as a socket,
// until it ends or ctx does, and closes c. The host must greet, as on a
// virtio-serial port: whoever has no token gets no answer. It returns nil when
// the host closed the stream. Every command that was run over it has been
// killed by then, if it had not ended.
func (s *Server) ServeStream(ctx context.Context, c net.Conn) error {
	return s.pump(ctx, c)
}

// http returns what speaks HTTP/2 on the connections of one stream.
//
// With the defaults, one command that does not read its input uses up the
// connection's window, and every other stream stands still; and at 250 streams
// a client would dial again, which a single byte stream does not survive. What
// a stream may hold is bounded by its own window. (The documentation promises
// windows below 4 MiB only. TestDeafCommands tells if that becomes true.)
func (s *Server) http(ctx context.Context, h http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:     h,
		Protocols:   &protocols,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), // a host that goes away is nothing new
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: 1 << 30,
			MaxReceiveBufferPerStream:     256 << 10,
			MaxConcurrentStreams:          10_000,
		},
	}
}

// Serve serves the virtio-serial port [wire.PortName], or the vsock port that
// the bundle names, until ctx ends, and returns nil then. An error means that
// it can never serve.
func Serve(ctx context.Context, o ServeOptions) error {
	s, err := New(o)
	if err != nil {
		return err
	}
	if port := o.Bundle.VsockPort; port != 0 {
		return s.serveVsock(ctx, port)
	}
	return s.serveSerial(ctx)
}

// serveSerial waits for the port to appear, and for it to come back if it
// goes.
func (s *Server) serveSerial(ctx context.Context) error {
	for {
		f, err := openPort(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		err = s.servePort(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		s.o.Log.Warn("agent port ended", "err", err)
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil
		}
	}
}

func (s *Server) servePort(ctx context.Context, f *os.File) error {
	p, err := newPort(f, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.tryWrite(wire.Greeting(s.token(), wire.EndNonce))
	s.o.Log.Info("agent serves", "port", f.Name())
	return s.pump(ctx, p)
}

// pause waits for d or until ctx ends, and returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
