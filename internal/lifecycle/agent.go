package lifecycle

import (
	"context"
	"fmt"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/trace"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// consoleLines is how many of the console's last lines an error shows.
const consoleLines = 8

// redialTime bounds reaching the agent of a machine that is up.
const redialTime = 15 * time.Second

// Agent returns the connection to the agent of a running machine, dialling if
// there is none, and resumes a machine that was paused. The connection is
// shared: the caller must not close it. If the machine does not run, or stands
// for want of room, the error is of kind [errkind.Conflict].
func (m *Manager) Agent(ctx context.Context, id vm.ID) (guest.Agent, error) {
	a, l, err := m.reach(ctx, id)
	if err == nil {
		m.tell(ctx, l, a)
	}
	return a, err
}

// reach finds the way to the agent of a machine that is to be used.
func (m *Manager) reach(ctx context.Context, id vm.ID) (guest.Agent, *live, error) {
	defer m.Use(id)() // before the record is read, see idle.go
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	l := m.liveOf(id)
	if l == nil || !m.Alive(ctx, v) {
		return nil, nil, notRunning(v)
	}
	if err := ours(v); err != nil {
		return nil, nil, err
	}
	if v.State == vm.Paused {
		if err := m.awake(ctx, v); err != nil {
			return nil, nil, err
		}
	}
	if err := l.silence(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, redialTime)
	defer cancel()
	a, err := m.agentOf(ctx, l)
	return a, l, err
}

// Gone is closed when the machine's VMM process has ended; it is nil if the
// machine is not running.
func (m *Manager) Gone(id vm.ID) <-chan struct{} {
	if l := m.liveOf(id); l != nil {
		return l.gone
	}
	return nil
}

// EndOf waits until the end of a machine whose process has gone is recorded,
// for a moment, and returns why it ended.
func (m *Manager) EndOf(ctx context.Context, id vm.ID) string {
	ctx, cancel := context.WithTimeout(ctx, 2*lastWords)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := m.d.Records.Get(ctx, id)
		switch {
		case errkind.Of(err) == errkind.NotFound:
			return "it was deleted"
		case err == nil && !v.State.Up() && v.StateReason != "":
			return v.StateReason
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "why is not known"
		}
	}
}

func describe(v vm.VM) string {
	if v.StateReason == "" {
		return string(v.State)
	}
	return string(v.State) + ": " + v.StateReason
}

// agentOf returns the one connection to a machine's agent, made anew if the
// one before broke.
func (m *Manager) agentOf(ctx context.Context, l *live) (guest.Agent, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	l.dialing.Lock()
	defer l.dialing.Unlock()
	if a := l.connected(); a != nil {
		return a, nil
	}
	e, err := m.endpoint(ctx, l)
	if err != nil {
		return nil, err
	}
	end := trace.Span(ctx, trace.Guest, "dial the agent")
	a, err := m.d.Dialer.Dial(ctx, e)
	end()
	if err != nil {
		return nil, fmt.Errorf("reach the agent of %q: %w", l.vm().Name, err)
	}
	if m.liveOf(l.vm().ID) != l {
		a.Close() // taken down while we dialled
		return nil, errkind.New(errkind.Conflict, "machine %q is not running", l.vm().Name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agent = a
	return a, nil
}

// take keeps the connection to a VMM that answers only now. One that comes
// after the machine was given up is closed.
func (l *live) take(mach vmm.Machine) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		mach.Close()
		return l.ctx.Err()
	}
	l.mach = mach
	return nil
}

// connected returns the connection to the agent if there is one that works.
func (l *live) connected() guest.Agent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.agent == nil {
		return nil
	}
	select {
	case <-l.agent.Done():
		l.agent.Close()
		l.agent = nil
	default:
	}
	return l.agent
}

// endpoint asks the VMM where the agent is, and reconnects to a VMM that did
// not answer before. Preconditions: l.dialing is held.
func (m *Manager) endpoint(ctx context.Context, l *live) (guest.Endpoint, error) {
	mach, _ := l.standing()
	if mach == nil {
		d, err := m.driver(l.vm().Spec.Driver)
		if err != nil {
			return guest.Endpoint{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, attachTime)
		defer cancel()
		if mach, err = d.Attach(ctx, m.ref(l.vm())); err != nil {
			return guest.Endpoint{}, fmt.Errorf("%w: %w", silentVMM.error(l.vm()), err)
		}
		if err := l.take(mach); err != nil {
			return guest.Endpoint{}, err
		}
		m.background(func() { m.attend(l, mach) })
	}
	e := mach.Agent()
	g := guest.Endpoint{Kind: string(e.Kind), Path: e.Path, CID: e.CID, Port: e.Port, Token: l.greeting()}
	if e.Kind == vmm.Vsock {
		// The address is the machine's as long as its VMM lives; then anybody
		// on the host may take it. One that answers now lived when we connected.
		g.Still = func(ctx context.Context) error {
			_, err := mach.Status(ctx)
			return err
		}
	}
	return g, nil
}

// bootError tells why a machine ended before its agent answered.
func (m *Manager) bootError(l *live, console int64) error {
	tail := quoteConsole(m.consoleTail(l.vm(), console, consoleLines))
	return hintLogs(fmt.Errorf("%s before it was ready%s", m.whyEnded(l), tail), l.vm())
}

// silentError tells that a machine runs but its agent did not answer.
func (m *Manager) silentError(l *live, console int64, limit time.Duration) error {
	err := errkind.New(errkind.Timeout, "the guest's agent did not answer within %s%s", limit, quoteConsole(m.consoleTail(l.vm(), console, consoleLines)))
	return hintLogs(err, l.vm())
}

// hintLogs points at the console's log, if the machine will be there to show
// it.
func hintLogs(err error, v vm.VM) error {
	if v.Ephemeral {
		return err
	}
	return errkind.WithHint(err, "banger vm logs "+v.Name)
}

func quoteConsole(tail string) string {
	if tail == "" {
		return "; its console is empty"
	}
	return "; its console ends:\n" + tail
}
