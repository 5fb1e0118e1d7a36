package lifecycle

import (
	"context"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A machine that says so is paused when nobody has used it for a while, as by
// [Manager.Pause], and resumed by use. Used is one that a call works in, whose
// session runs, or that somebody is connected with over the network.
//
// Whoever comes while it is being paused finds it running, or resumes it: a
// user is noted before he reads the record (idle_use.go), the pause is recorded
// before it is looked a last time whether there is a user. One of both sees the
// other.

// CheckAutoPause refuses a time to be idle for that makes no sense; 0 stands for
// never.
func CheckAutoPause(d time.Duration) error {
	if d == 0 || d >= vm.MinAutoPause {
		return nil
	}
	return errkind.New(errkind.Usage, "auto-pause after %s: it takes at least %s, or 0 for never", d, vm.MinAutoPause)
}

// SetAutoPause changes how long nobody has to use a machine for it to be
// paused, from now on (0: it never is by itself). The machine may run.
func (m *Manager) SetAutoPause(ctx context.Context, id vm.ID, d time.Duration) (vm.VM, error) {
	if err := CheckAutoPause(d); err != nil {
		return vm.VM{}, err
	}
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err == nil {
		err = ours(v)
	}
	if err != nil {
		return v, err
	}
	if v, err = m.d.Records.SetAutoPause(ctx, id, d); err != nil {
		return v, err
	}
	if l := m.liveOf(id); l != nil {
		m.touch(l)
		l.autoPause.Store(int64(d))
	}
	m.log.Info("auto-pause", "vm", id, "name", v.Name, "after", d)
	return v, nil
}

// PauseIdle looks for machines that nobody uses, and pauses those that are to
// be. The daemon calls it from time to time.
func (m *Manager) PauseIdle(ctx context.Context) {
	m.lookForIdle(ctx, func(l *live) { m.background(func() { m.pauseIdle(l) }) })
}

// lookForIdle calls pause for each machine that seems to be idle.
func (m *Manager) lookForIdle(ctx context.Context, pause func(*live)) {
	m.idle.looking.Lock()
	defer m.idle.looking.Unlock()
	ls := m.mayIdle()
	m.lookAtConnections(ctx, ls)
	for _, l := range ls {
		if m.isIdle(l) {
			pause(l)
		}
	}
}

// mayIdle returns the machines that are to be paused when nobody uses them. For
// one that stands, or whose VMM does not answer, the time begins anew.
func (m *Manager) mayIdle() (ls []*live) {
	for _, l := range m.allLive() {
		if l.autoPause.Load() == 0 || l.vm().Ephemeral || l.vm().Purpose != vm.ForUser {
			continue // one that is leased to a call is used by it
		}
		if _, st := l.standing(); st != vmm.Running {
			m.touch(l)
			continue
		}
		ls = append(ls, l)
	}
	return ls
}

// pauseIdle pauses a machine that nobody uses, as far as can be told without
// asking it. That it could not is logged: the next time may.
func (m *Manager) pauseIdle(l *live) {
	if !l.idling.TryLock() {
		return // it is still being asked
	}
	defer l.idling.Unlock()
	if m.runsSessions(l) {
		return
	}
	v, unlock, err := m.lockedUp(l.ctx, l.vm().ID)
	if err != nil {
		return // it is about to start, or has ended
	}
	defer unlock()
	if v.State != vm.Running || m.liveOf(v.ID) != l || !m.isIdle(l) {
		return
	}
	if err := m.holdIdle(v, l); err != nil {
		m.touch(l)
		m.log.Warn("pause an idle machine", "vm", v.ID, "err", err)
	}
}

// holdIdle pauses a machine, and lets it go on if somebody came meanwhile.
// Preconditions: the machine's lock is held.
func (m *Manager) holdIdle(v vm.VM, l *live) error {
	_, mach, err := m.answering(v)
	if err != nil {
		return err
	}
	after := time.Duration(l.autoPause.Load())
	if v, err = m.hold(l.ctx, v, l, mach, "idle for "+after.String()); err != nil {
		return err
	}
	if m.isIdle(l) {
		return nil // who comes from now on reads that it is paused
	}
	m.log.Info("resumed by use", "vm", v.ID, "name", v.Name)
	if _, err = m.release(l.ctx, v, l, mach); err == nil {
		m.tellAny(l.ctx, l) // who came does not know that it stood
	}
	return err
}
