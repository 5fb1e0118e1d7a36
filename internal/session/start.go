package session

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// maxTries is how often a name is made up, where those before it were taken.
const maxTries = 20

// Start starts a session and returns it when its command runs, has ended, or
// could not be started, which is no error: the session has failed, and says
// why. It goes on when the caller goes away. On an error there may be a record
// that says starting, if the guest could not be asked any more: the next read
// finds the truth.
func (m *Manager) Start(ctx context.Context, machine string, r Request) (Session, error) {
	s, err := r.record(m.d.LogLimit)
	if err != nil {
		return Session{}, err
	}
	v, err := m.d.Records.Resolve(ctx, machine)
	if err != nil {
		return Session{}, err
	}
	t, err := m.reach(ctx, v)
	if err != nil {
		return Session{}, err
	}
	defer t.done()
	ctx, cancel := m.detached(ctx, m.patience.start)
	defer cancel()
	defer m.begin(s.ID)() // before there is a record of it
	s.Machine = v.ID
	if s, err = m.create(ctx, s); err != nil {
		return Session{}, err
	}
	m.log.Info("session", "vm", v.ID, "session", s.ID, "name", s.Name, "status", s.Status)
	resp, err := t.agent.StartSession(ctx, connect.NewRequest(s.start(r.Terminal)))
	var n Seen
	if err == nil {
		n = told(resp.Msg.GetSession())
	}
	if n.Status == "" {
		if n, err = m.whetherStarted(ctx, t, s, err); err != nil {
			return s, err
		}
	}
	return m.started(ctx, t, s, n)
}

// create stores a new record, under a name that nobody has if it has none.
func (m *Manager) create(ctx context.Context, s Session) (Session, error) {
	made := s.Name == ""
	for try := 0; ; try++ {
		if made {
			s.Name = vm.MadeUpName()
		}
		got, err := m.d.Records.CreateSession(ctx, s)
		if err == nil || !made || errkind.Of(err) != errkind.Conflict || try == maxTries {
			return got, err
		}
	}
}

// whetherStarted finds out what became of a start that the agent did not answer
// as it should. A guest that does not know the session, or says nothing of it
// that makes sense, is kept from starting it after all.
func (m *Manager) whetherStarted(ctx context.Context, t target, s Session, cause error) (Seen, error) {
	ctx, cancel := m.detached(ctx, m.patience.look+m.patience.act)
	defer cancel()
	says, err := m.ask(ctx, t.vm, []ID{s.ID})
	if err != nil {
		m.record(ctx, []Session{s}, planNoted([]ID{s.ID}, err.Error()))
		err = fmt.Errorf("start session %q: %w; whether it runs is not known", s.Name, err)
		return Seen{}, errkind.WithHint(err, "banger vm session show "+t.vm.Name+" "+s.Name)
	}
	why := unknownToGuest
	if found := planTold([]ID{s.ID}, says, map[ID]bool{s.ID: true}); len(found) == 1 {
		if found[0].Seen.Status != "" {
			return found[0].Seen, nil
		}
		why = found[0].Seen.LastError
	}
	if cause != nil {
		why = agentError(t.vm, cause).Error()
	}
	m.remove(ctx, t, s.ID)
	return failed(StageStart, why), nil
}

// started records what came of a start. A session that was deleted meanwhile is
// removed from the guest too.
func (m *Manager) started(ctx context.Context, t target, s Session, n Seen) (Session, error) {
	ctx, cancel := m.detached(ctx, m.patience.act)
	defer cancel()
	now := m.record(ctx, []Session{s}, []Change{{s.ID, n}})
	if len(now) == 0 {
		m.remove(ctx, t, s.ID)
		return s, deleted(s)
	}
	m.log.Info("session", "vm", s.Machine, "session", s.ID, "name", s.Name, "status", now[0].Status)
	return now[0], nil
}

// remove removes a session from its guest that no record will tell of as
// running. That it could not is logged: the next sweep may.
func (m *Manager) remove(ctx context.Context, t target, id ID) {
	if err := m.removeFromGuest(ctx, t, id); err != nil {
		m.log.Warn("remove a session from its guest", "vm", t.vm.ID, "session", id, "err", err)
	}
}
