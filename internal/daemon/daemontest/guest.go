package daemontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent"
	"banger/internal/disk/disktest"
	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// Dialer reaches the pretend guests of a host: behind each running VMM
// answers a real agent, which runs its commands on the host of the test.
type Dialer struct {
	Host *vmmtest.Host
	Fail func(op string) error // asked before and after each operation; may be nil
	// Silent agents do not answer; may be nil.
	Silent *atomic.Bool
	// ClocksSet counts how often a guest's clock was set; may be nil.
	ClocksSet *atomic.Int64
	// Identities are those of guests that go on from a template; may be nil.
	Identities *Identities
}

var _ guest.Dialer = Dialer{}

// Dial reaches the agent of the VMM whose agent socket is at e.Path. A VMM that
// is not there is waited for until ctx ends.
func (d Dialer) Dial(ctx context.Context, e guest.Endpoint) (guest.Agent, error) {
	if err := d.fail("before guest"); err != nil {
		return nil, err
	}
	if err := d.awaitWord(ctx); err != nil {
		return nil, err
	}
	s, err := d.find(ctx, e.Path)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	if err := d.serve(s, e.Token, theirs); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	a, err := transport.Over(ctx, ours, e.Token)
	if err != nil {
		return nil, err
	}
	if err := d.fail("after guest"); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// awaitWord waits until agents are not silent.
func (d Dialer) awaitWord(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for d.Silent != nil && d.Silent.Load() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (d Dialer) fail(op string) error {
	if d.Fail == nil {
		return nil
	}
	return d.Fail(op)
}

// find waits until a VMM with that agent socket runs.
func (d Dialer) find(ctx context.Context, sock string) (vmm.Spec, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		for _, id := range d.Host.Processes() {
			if s, ok := d.Host.Spec(id); ok && s.AgentSock == sock {
				return s, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return vmm.Spec{}, ctx.Err()
		}
	}
}

// serve answers on c until the machine's VMM is gone.
func (d Dialer) serve(s vmm.Spec, token string, c net.Conn) error {
	pid := d.Host.PID(s.ID)
	p, err := d.Host.Finder().Find(context.Background(), d.Host.Driver().Signature(s), vmm.Hint{PID: pid})
	if err != nil {
		return err
	}
	if d.Identities == nil {
		d.Identities = new(Identities)
	}
	b, err := bundle(s)
	if err != nil {
		return err
	}
	newAgent := agent.New
	if b.Template {
		newAgent = func(o agent.ServeOptions) (*agent.Server, error) {
			return d.Identities.agent(process{s.ID, pid}, o)
		}
	} else {
		b.Token = token
	}
	srv, err := newAgent(agent.ServeOptions{
		Bundle: b, Role: "init", Log: slog.New(slog.DiscardHandler),
		SSHAddr: "127.0.0.1:1", // the host of the test may have a server of its own
		Sync:    func() {}, AnswerTime: time.Nanosecond,
		SetClock:   d.setClock,
		System:     system{d.Identities, s.ID},
		SessionDir: filepath.Join(disktest.WorkRoot(s.Dir), ".local/state/banger/sessions"),
		SessionRun: filepath.Join(filepath.Dir(s.AgentSock), "s"), // short enough for sockets
		Power: func(reboot bool) {
			if reboot {
				d.Host.Reboot(s.ID)
			} else {
				d.Host.PowerOff(s.ID)
			}
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		defer p.Close()
		// Its only error is that of ctx, which ends with the stream.
		_ = p.Wait(ctx)
		srv.KillSessions() // they are processes of the test's host
	}()
	go func() {
		defer cancel()
		// That the host went away is what ends it.
		_ = srv.ServeStream(ctx, gated{c, ctx, d})
	}()
	return nil
}

// setClock sets no clock: it is the host's.
func (d Dialer) setClock(time.Time) error {
	if d.ClocksSet != nil {
		d.ClocksSet.Add(1)
	}
	return nil
}

// gated is a connection on which a silent agent hears nothing.
type gated struct {
	net.Conn
	ctx context.Context
	d   Dialer
}

func (g gated) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if werr := g.d.awaitWord(g.ctx); err == nil && werr != nil {
		return 0, werr
	}
	return n, err
}

// bundle returns what [Boot] wrote for a machine, or for the template from which
// it goes on.
func bundle(s vmm.Spec) (b wire.Bundle, err error) {
	data, err := vmmtest.Initrd(s)
	if err != nil {
		return b, fmt.Errorf("read boot bundle: %w", err)
	}
	return b, json.Unmarshal(data, &b)
}

// socketPair returns two connected sockets.
func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	conn := func(fd int) (net.Conn, error) {
		f := os.NewFile(uintptr(fd), "socketpair")
		defer f.Close() // FileConn has a copy
		return net.FileConn(f)
	}
	a, aerr := conn(fds[0])
	b, berr := conn(fds[1])
	return a, b, errors.Join(aerr, berr)
}
