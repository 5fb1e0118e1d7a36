package lifecycle

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// tellTime bounds telling a guest what it has to be told.
const tellTime = 5 * time.Second

// A due is what a guest that stood has to be told before it is used: the time, and
// its name, if that may be another. Whoever runs a command tells it with that.
type due struct {
	n    int    // how many there were; the last is due while told is less
	told int    // the last that the guest was told
	name string // its machine's name; empty: as it was
}

// setDue notes that a guest has to be told the time, and its name unless that is
// empty.
func (l *live) setDue(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due.n++
	if name != "" {
		l.due.name = name
	}
}

// wake returns what the guest has to be told now, nil if nothing, and what is to
// be called when it was. Its agent comes first for a while then: what the time wakes
// in the guest can wait.
func (l *live) wake() (r *wire.WakeRequest, told func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.due.n
	if l.due.told == n {
		return nil, func() {}
	}
	r = &wire.WakeRequest{UnixNs: time.Now().UnixNano(), Hostname: l.due.name, Hurry: true}
	return r, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.due.told < n {
			l.due.told = n
		}
		if l.due.n == n {
			l.due.name = ""
		}
	}
}

// tell tells a guest what is due. One that cannot be told goes on all the same,
// and is told the next time.
func (m *Manager) tell(ctx context.Context, l *live, a guest.Agent) {
	r, told := l.wake()
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	if _, err := a.Wake(ctx, connect.NewRequest(r)); err != nil {
		if l.ctx.Err() == nil {
			m.log.Warn("tell a guest the time", "vm", l.vm().ID, "err", err)
		}
		return
	}
	told()
}

// tellAny is tell of a machine whose agent is yet to be reached.
func (m *Manager) tellAny(ctx context.Context, l *live) {
	if r, _ := l.wake(); r == nil {
		return
	}
	ctx, cancel := m.detached(ctx, tellTime)
	defer cancel()
	a, err := m.agentOf(ctx, l)
	if err != nil {
		if l.ctx.Err() == nil {
			m.log.Warn("reach the agent of a guest that stood", "vm", l.vm().ID, "err", err)
		}
		return
	}
	m.tell(ctx, l, a)
}

// AgentToRun is [Manager.Agent] for who runs a command: if wake is not nil, it is
// to go with that, and told to be called when it has arrived.
func (m *Manager) AgentToRun(ctx context.Context, id vm.ID) (a guest.Agent, wake *wire.WakeRequest, told func(), err error) {
	a, l, err := m.reach(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	wake, told = l.wake()
	return a, wake, told, nil
}
