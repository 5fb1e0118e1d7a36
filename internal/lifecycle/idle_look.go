package lifecycle

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// fewPackets is how many a guest sends that nobody is connected with, between
// two looks at it: it asks for its gateway's address, or for the time. Who opens
// a connection, answers and closes it sends more.
const fewPackets = 3

// A netLook is what was last seen of a machine's network. It is guarded by the
// manager's idle.looking.
type netLook struct {
	taken     bool
	at        time.Duration // by the clock of idle
	packets   int64         // that the guest had sent
	connected bool          // somebody was
}

// lookEvery is how often connections of a machine are looked at that is paused
// after some time: a look at all that the host has costs it milliseconds.
func lookEvery(after time.Duration) time.Duration {
	return min(max(after/10, time.Second), 10*time.Second)
}

// lookAtConnections notes which machines somebody is connected with, or sends
// to, of those for which it is time. Of what cannot be told, it is taken that
// they are used. Preconditions: m.idle.looking is held.
func (m *Manager) lookAtConnections(ctx context.Context, ls []*live) {
	now := m.idle.clock()
	due, ids, addrs := m.dueLooks(now, ls)
	if len(due) == 0 {
		return
	}
	carried, err := m.d.Network.Traffic(ctx, ids)
	quiet, cerr := m.d.Network.Connected(ctx, addrs) // without, packets alone tell
	if ctx.Err() != nil {
		return // the daemon ends
	}
	m.warnIfBlind(errors.Join(err, cerr))
	for i, l := range due {
		look := netLook{taken: true, at: now, packets: carried[ids[i]].OutPackets}
		// Of a connection that carried nothing since the machine was started,
		// an earlier one was the end that never said so.
		q, there := quiet[addrs[i]]
		look.connected = there && q <= m.idle.now().Sub(l.upSince)+time.Second
		sends := l.net.taken && look.packets-l.net.packets > fewPackets
		// One that was connected a look ago may have been until now.
		if look.connected || l.net.connected || sends || err != nil {
			m.touch(l)
		}
		if err == nil {
			l.net = look
		}
	}
}

// dueLooks returns the machines whose connections are to be looked at now, with
// their ids and addresses: also one that is about to be paused.
func (m *Manager) dueLooks(now time.Duration, ls []*live) (due []*live, ids []string, addrs []netip.Addr) {
	known := m.addresses()
	for _, l := range ls {
		addr, ok := known[l.vm().ID]
		every := lookEvery(time.Duration(l.autoPause.Load()))
		if !ok || l.net.taken && now-l.net.at < every && !m.isIdle(l) {
			continue
		}
		due, ids, addrs = append(due, l), append(ids, string(l.vm().ID)), append(addrs, addr)
	}
	return due, ids, addrs
}

// warnIfBlind logs why it cannot be told who is connected with machines, once.
func (m *Manager) warnIfBlind(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != m.idle.blind {
		m.log.Warn("look who is connected with machines", "err", err, "hints", errkind.Hints(err))
	}
	m.idle.blind = why
}

// runsSessions asks a machine's agent whether a session runs, or has a short
// while ago. An agent that does not answer may have some.
func (m *Manager) runsSessions(l *live) bool {
	ctx, cancel := context.WithTimeout(l.ctx, m.patience.answer)
	defer cancel()
	a, err := m.agentOf(ctx, l)
	var resp *connect.Response[wire.ListSessionsResponse]
	if err == nil {
		resp, err = a.ListSessions(ctx, connect.NewRequest(&wire.ListSessionsRequest{}))
	}
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return false // it is of a release without sessions
	}
	if err != nil {
		m.touch(l)
		m.log.Debug("ask for sessions", "vm", l.vm().ID, "err", err)
		return true
	}
	for _, s := range resp.Msg.Sessions {
		m.noteSession(l, s)
	}
	return !m.isIdle(l)
}

// noteSession takes a session that runs for a use that there is now, and one
// that has ended for a use until then. A time to come is none.
func (m *Manager) noteSession(l *live, s *wire.SessionStatus) {
	switch s.GetState() {
	case "starting", "running", "stopping":
		m.touch(l)
	case "exited", "failed":
		if ago := m.idle.now().Sub(time.Unix(0, s.GetEndedNs())); ago >= 0 {
			l.used.raise(m.idle.clock() - ago)
		}
	}
}
