package session

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// sweep looks through the guests of machines that run, in the background and
// once after each of their starts, for what no record tells of: sessions that
// were deleted while their machine was off, or started when the daemon died and
// given up since.
func (m *Manager) sweep(machines []vm.VM) {
	for _, v := range machines {
		if v.State == vm.Running && m.mark(v) {
			m.background(func() { m.sweepOne(v) })
		}
	}
}

// mark reports whether a machine is to be looked through, and that it is.
func (m *Manager) mark(v vm.VM) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.swept[v.ID]; ok && at.Equal(v.StartedAt) {
		return false
	}
	m.swept[v.ID] = v.StartedAt
	return true
}

// forget drops the marks of machines that are not in a list of all.
func (m *Manager) forget(all []vm.VM) {
	there := make(map[vm.ID]bool, len(all))
	for _, v := range all {
		there[v.ID] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.swept {
		if !there[id] {
			delete(m.swept, id)
		}
	}
}

// sweepOne is sweep for one machine. If it fails the next read tries again.
func (m *Manager) sweepOne(v vm.VM) {
	err := m.sweepGuest(v)
	if err == nil || m.ctx.Err() != nil || errkind.Of(err) == errkind.Conflict {
		return // done, or nothing that trying again would change
	}
	m.log.Warn("look for sessions that no record tells of", "vm", v.ID, "err", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.swept, v.ID)
}

func (m *Manager) sweepGuest(v vm.VM) error {
	says, err := m.ask(m.ctx, v, nil)
	if err != nil {
		return err
	}
	// After the guest was asked: what it knows had its record by then.
	records, err := m.d.Records.Sessions(m.ctx, v.ID)
	if err != nil {
		return err
	}
	has := make(map[ID]Session, len(records))
	for _, s := range records {
		has[s.ID] = s
	}
	t, err := m.reach(m.ctx, v)
	if err != nil {
		return err
	}
	defer t.done()
	for _, st := range says {
		id := ID(st.GetId())
		s, ok := has[id]
		switch {
		case !id.Valid():
		case !ok:
			m.log.Info("remove a session that no record tells of", "vm", v.ID, "session", id)
			err = m.removeFromGuest(m.ctx, t, id)
		case s.Status.Final() && told(st).Status.Runs():
			m.log.Warn("kill a session that is recorded as ended", "vm", v.ID, "session", id)
			err = m.killInGuest(t, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeFromGuest removes a session from its guest, and succeeds if it is not
// there.
func (m *Manager) removeFromGuest(ctx context.Context, t target, id ID) error {
	ctx, cancel := context.WithTimeout(ctx, m.patience.act)
	defer cancel()
	_, err := t.agent.DeleteSession(ctx, connect.NewRequest(&wire.DeleteSessionRequest{Id: string(id)}))
	if code, ok := said(err); ok && code == connect.CodeNotFound || err == nil {
		return nil
	}
	return agentError(t.vm, err)
}

func (m *Manager) killInGuest(t target, id ID) error {
	ctx, cancel := context.WithTimeout(m.ctx, m.patience.act)
	defer cancel()
	_, err := t.agent.SignalSession(ctx, connect.NewRequest(&wire.SignalSessionRequest{Id: string(id), Signal: "KILL"}))
	if err != nil {
		return agentError(t.vm, err)
	}
	return nil
}
