package session

import "context"

// Delete removes a session, its logs and its record, and returns it as it was
// last. One that runs is killed. Of a machine that does not run the record is
// removed; the rest goes with the first read after the machine's next start
// (see sweep). It may be called again after a failure, and goes on when the
// caller goes away.
func (m *Manager) Delete(ctx context.Context, machine, ref string) (Session, error) {
	v, s, err := m.find(ctx, machine, ref)
	if err != nil {
		return s, err
	}
	ctx, cancel := m.detached(ctx, m.patience.look+2*m.patience.act)
	defer cancel()
	if now := m.look(ctx, s.Machine, []Session{s}); len(now) > 0 {
		s = now[0] // as it was last
	}
	if v.State.Up() {
		t, err := m.reach(ctx, v)
		if err == nil {
			defer t.done()
			err = m.removeFromGuest(ctx, t, s.ID)
		}
		if err != nil {
			return s, err
		}
	}
	if err := m.d.Records.DeleteSession(ctx, s.ID); err != nil {
		return s, err
	}
	m.log.Info("session deleted", "vm", s.Machine, "session", s.ID, "name", s.Name)
	return s, nil
}
