package session

import (
	"cmp"
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// DefaultGrace is how long a command has to end when it is asked to and nobody
// says how long; MaxGrace, the longest that anybody can say.
const (
	DefaultGrace = 10 * time.Second
	MaxGrace     = 24 * time.Hour
)

// Stop asks a session's command to end and kills it after a grace time
// (negative: DefaultGrace), it and its process group. It goes on when the
// caller goes away, and returns the session as it is then. One that does not
// run is [errkind.Conflict].
func (m *Manager) Stop(ctx context.Context, machine, ref string, grace time.Duration) (Session, error) {
	if grace < 0 {
		grace = DefaultGrace
	}
	grace = min(grace, MaxGrace)
	return m.end(ctx, machine, ref, grace, func(ctx context.Context, t target, id ID) (*wire.SessionStatus, error) {
		resp, err := t.agent.StopSession(ctx, connect.NewRequest(&wire.StopSessionRequest{Id: string(id), GraceNs: int64(grace)}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.GetSession(), nil
	})
}

// Kill sends a signal (empty: KILL) to a session's process group and returns
// the session as it is then. One that does not run is [errkind.Conflict].
func (m *Manager) Kill(ctx context.Context, machine, ref, signal string) (Session, error) {
	signal = strings.TrimPrefix(cmp.Or(signal, "KILL"), "SIG")
	if toldSignal(signal) == "" {
		return Session{}, errkind.New(errkind.Usage, "%.70q is no signal", signal)
	}
	return m.end(ctx, machine, ref, 0, func(ctx context.Context, t target, id ID) (*wire.SessionStatus, error) {
		resp, err := t.agent.SignalSession(ctx, connect.NewRequest(&wire.SignalSessionRequest{Id: string(id), Signal: signal}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.GetSession(), nil
	})
}

// end does something to a session that runs, which may take a while, and
// records where it stands then.
func (m *Manager) end(ctx context.Context, machine, ref string, wait time.Duration,
	do func(context.Context, target, ID) (*wire.SessionStatus, error)) (Session, error) {
	t, s, err := m.findRunning(ctx, machine, ref)
	if err != nil {
		return s, err
	}
	defer t.done()
	if s, err = m.lookOne(ctx, s); err != nil {
		return s, err
	}
	if err := s.checkRuns(); err != nil {
		return s, err
	}
	ctx, cancel := m.detached(ctx, wait+m.patience.act)
	defer cancel()
	st, err := do(ctx, t, s.ID)
	if err != nil {
		return s, m.broken(ctx, t, s, err, "session "+s.Name+" was being ended")
	}
	return m.saw(ctx, s, told(st))
}

// saw records what was seen of a session. [errkind.NotFound]: it was deleted.
func (m *Manager) saw(ctx context.Context, s Session, n Seen) (Session, error) {
	now := m.record(ctx, []Session{s}, []Change{{s.ID, n}})
	if len(now) == 0 {
		return s, deleted(s)
	}
	if now[0].Status != s.Status {
		m.log.Info("session", "vm", s.Machine, "session", s.ID, "name", s.Name, "status", now[0].Status)
	}
	return now[0], nil
}
