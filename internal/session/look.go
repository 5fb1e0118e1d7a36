package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
	"banger/internal/vm"
)

// look brings sessions of one machine up to date and returns them as they are
// then, without those that were deleted meanwhile. It takes no longer than a
// guest or a disk is waited for: what could not be looked at stays as it was,
// with the reason. Preconditions: list was loaded from the store.
func (m *Manager) look(ctx context.Context, machine vm.ID, list []Session) []Session {
	ids := open(list)
	if len(ids) == 0 {
		return list
	}
	starting := m.beingStarted() // after the records, before the guest is asked
	v, err := m.d.Records.Get(ctx, machine)
	switch {
	case errkind.Of(err) == errkind.NotFound:
		return nil // and its sessions with it
	case err != nil:
		return m.record(ctx, list, planNoted(ids, err.Error()))
	case settled(v.State):
		return m.record(ctx, list, m.readDisk(ctx, v, ids))
	case v.Held:
		return list // paused, it is not woken for a look
	case !v.State.Up():
		return m.record(ctx, list, planNoted(ids, fmt.Sprintf("vm %q is %s", v.Name, v.State)))
	}
	says, err := m.ask(ctx, v, ids)
	if err != nil {
		return m.record(ctx, list, planNoted(ids, err.Error()))
	}
	return m.record(ctx, list, planTold(ids, says, starting))
}

// lookOne is look for one session. [errkind.NotFound]: it was deleted.
func (m *Manager) lookOne(ctx context.Context, s Session) (Session, error) {
	now := m.look(ctx, s.Machine, []Session{s})
	if len(now) == 0 {
		return s, deleted(s)
	}
	return now[0], nil
}

func deleted(s Session) error {
	return errkind.WithHint(errkind.New(errkind.NotFound, "session %q was deleted meanwhile", s.Name),
		"banger vm session list "+s.VM)
}

// ask has a machine's agent tell of sessions; no ids: of all that there are.
func (m *Manager) ask(ctx context.Context, v vm.VM, ids []ID) ([]*wire.SessionStatus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.patience.look,
		errkind.New(errkind.Timeout, "the agent of %q did not answer within %s", v.Name, m.patience.look))
	defer cancel()
	defer m.d.Machines.Use(v.ID)()
	a, err := m.d.Machines.Agent(ctx, v.ID)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	r := &wire.ListSessionsRequest{}
	for _, id := range ids {
		r.Ids = append(r.Ids, string(id))
	}
	resp, err := a.ListSessions(ctx, connect.NewRequest(r))
	if err != nil && connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		<-ctx.Done() // the other end knows the limit too, and kept it a moment before us
	}
	if err != nil {
		return nil, causeOf(ctx, agentError(v, err))
	}
	return resp.Msg.GetSessions(), nil
}

// causeOf is why ctx ended, if it did, else err.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readDisk finds what became of sessions whose machine is stopped.
func (m *Manager) readDisk(ctx context.Context, v vm.VM, ids []ID) []Change {
	ctx, cancel := context.WithTimeoutCause(ctx, m.patience.disk,
		errkind.New(errkind.Timeout, "the work disk of %q could not be read within %s", v.Name, m.patience.disk))
	defer cancel()
	var changes []Change
	for _, id := range ids {
		st, err := m.d.Disks.Status(ctx, v.ID, id)
		if ctx.Err() != nil {
			return append(changes, planNoted(ids[len(changes):], context.Cause(ctx).Error())...)
		}
		n := ended(st)
		why := printable(fmt.Sprintf("read its status on the work disk of %q: %v", v.Name, err))
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, sessiondir.ErrGarbled), errors.Is(err, disk.ErrDamaged):
			n.LastError = why
		default:
			n = Seen{LastError: why} // another time it may be read
		}
		changes = append(changes, Change{id, n})
	}
	return changes
}

// record records what changes anything, and returns the sessions as they are
// then. That it cannot be recorded is told in what is returned: on a full disk,
// sessions can be looked at all the same.
func (m *Manager) record(ctx context.Context, list []Session, changes []Change) []Session {
	changes = news(list, changes, m.now())
	if len(changes) == 0 {
		return list
	}
	recorded, err := m.d.Records.ChangeSessions(ctx, changes)
	if err != nil {
		if ctx.Err() == nil {
			m.log.Warn("record where sessions stand", "err", err)
		}
		return m.unrecorded(list, changes, err)
	}
	return merge(list, changes, recorded)
}

// unrecorded is a list with changes that the store did not take.
func (m *Manager) unrecorded(list []Session, changes []Change, err error) []Session {
	list = slices.Clone(list)
	for _, c := range changes {
		i := slices.IndexFunc(list, func(s Session) bool { return s.ID == c.ID })
		list[i] = list[i].After(c.Seen, m.now())
		list[i].LastError = strings.TrimPrefix(list[i].LastError+"; this is not recorded: "+err.Error(), "; ")
	}
	return list
}

// merge is a list with the records that are new, without those that have gone.
func merge(list []Session, changes []Change, recorded []Session) []Session {
	now := make(map[ID]*Session)
	for _, c := range changes {
		now[c.ID] = nil
	}
	for i, s := range recorded {
		now[s.ID] = &recorded[i]
	}
	var out []Session
	for _, s := range list {
		r, changed := now[s.ID]
		switch {
		case !changed:
			out = append(out, s)
		case r != nil:
			out = append(out, *r)
		}
	}
	return out
}
