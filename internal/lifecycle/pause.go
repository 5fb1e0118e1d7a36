package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"banger/internal/errkind"
	"banger/internal/failpoint"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Pause makes a machine stand until it is resumed, or used: whatever takes its
// agent resumes it by itself. It may be called again; a machine that stands for
// want of room does not go on by itself then either. If the VMM does not do
// it, the machine runs on.
func (m *Manager) Pause(ctx context.Context, id vm.ID) (vm.VM, error) {
	v, unlock, err := m.lockedUp(ctx, id)
	if err != nil {
		return v, err
	}
	defer unlock()
	if v.Held {
		return v, nil
	}
	l, mach, err := m.answering(v)
	if err != nil {
		return v, err
	}
	return m.hold(ctx, v, l, mach, onRequest)
}

// onRequest is why a machine stands that [Manager.Pause] made stand.
const onRequest = "paused on request"

// hold makes a machine that is up stand, for a reason, until it is released. If
// the VMM does not do it, the machine runs on. Preconditions: the machine's lock
// is held.
func (m *Manager) hold(ctx context.Context, v vm.VM, l *live, mach vmm.Machine, reason string) (vm.VM, error) {
	c := vm.Change{To: vm.Paused, Reason: reason, Held: true, Found: v.State == vm.Paused}
	held, err := m.change(ctx, v.ID, c)
	if err == nil {
		err = failpoint.Hit("pause/recorded")
	}
	if err != nil {
		return v, err
	}
	if err := m.makeStand(ctx, l, mach, reason); err != nil {
		back, cerr := m.change(context.WithoutCancel(ctx), v.ID, vm.Change{To: v.State, Reason: v.StateReason, Found: true})
		if cerr == nil {
			v = back
		}
		return v, errors.Join(fmt.Errorf("pause %q: %w", v.Name, err), cerr)
	}
	m.log.Info("state", "vm", v.ID, "name", v.Name, "state", vm.Paused, "reason", reason)
	return held, failpoint.Hit("pause/done")
}

// Resume lets a machine go on that was paused, and sets its clock. For one that
// runs it does nothing. One for which there is no room stands on, and the error
// is of kind [errkind.Conflict]: it goes on as soon as there is.
func (m *Manager) Resume(ctx context.Context, id vm.ID) (vm.VM, error) {
	v, err := m.resume(ctx, id)
	if l := m.liveOf(id); err == nil && l != nil {
		m.tellAny(ctx, l)
	}
	return v, err
}

// resume is Resume, but for what the guest has to be told then.
func (m *Manager) resume(ctx context.Context, id vm.ID) (vm.VM, error) {
	v, unlock, err := m.lockedUp(ctx, id)
	if err != nil {
		return v, err
	}
	defer unlock()
	if v.State != vm.Paused {
		return v, nil
	}
	l, mach, err := m.answering(v)
	if err != nil {
		return v, err
	}
	if _, enough, err := m.room(); err != nil || !enough {
		return m.standForRoom(ctx, v, l, err)
	}
	m.touch(l)
	return m.release(ctx, v, l, mach)
}

// release lets a machine go on that stands, and has to be told the time then.
// Preconditions: the machine's lock is held.
func (m *Manager) release(ctx context.Context, v vm.VM, l *live, mach vmm.Machine) (vm.VM, error) {
	// Recorded first: after a crash it goes on by itself.
	now, err := m.change(ctx, v.ID, vm.Change{To: vm.Running})
	if err == nil {
		err = failpoint.Hit("resume/recorded")
	}
	if err != nil {
		return v, err
	}
	if err := m.letGo(ctx, l, mach); err != nil {
		return now, fmt.Errorf("resume %q: %w", v.Name, err)
	}
	m.log.Info("state", "vm", v.ID, "name", v.Name, "state", vm.Running)
	return now, failpoint.Hit("resume/done")
}

// lockedUp locks a machine that is up.
func (m *Manager) lockedUp(ctx context.Context, id vm.ID) (v vm.VM, unlock func(), err error) {
	if unlock, err = m.locks.Lock(ctx, id); err != nil {
		return v, nil, err
	}
	v, err = m.d.Records.Get(ctx, id)
	if err == nil {
		err = ours(v)
	}
	if err == nil && (m.liveOf(id) == nil || !m.Alive(ctx, v)) {
		err = notRunning(v)
	}
	if err != nil {
		unlock()
	}
	return v, unlock, err
}

// answering returns the connection to the VMM of a machine that is up.
func (m *Manager) answering(v vm.VM) (*live, vmm.Machine, error) {
	l := m.liveOf(v.ID)
	if l == nil {
		return nil, nil, notRunning(v)
	}
	mach, _ := l.standing()
	if mach == nil || l.whoIsSilent() == silentVMM {
		return nil, nil, silentVMM.error(v)
	}
	return l, mach, nil
}

// notRunning refuses what takes a machine that is up.
func notRunning(v vm.VM) error {
	err := errkind.New(errkind.Conflict, "machine %q is not running (%s)", v.Name, describe(v))
	if v.State == vm.Stopped || v.State == vm.Created {
		err = errkind.WithHint(err, "banger vm start "+v.Name)
	}
	return err
}

// makeStand makes a guest stand until [Manager.letGo], for a reason that is not
// empty. Preconditions: the machine's lock is held.
func (m *Manager) makeStand(ctx context.Context, l *live, mach vmm.Machine, why string) error {
	ctx, cancel := m.detached(ctx, attachTime)
	defer cancel()
	l.fitting.Lock()
	defer l.fitting.Unlock()
	l.setHeld(why)
	err := mach.Pause(ctx)
	if err == nil {
		err = m.lookWhetherStands(l, mach)
	}
	if err != nil {
		l.setHeld("")
	}
	return err
}

// letGo lets a guest go on, which has to be told the time then. Preconditions:
// the machine's lock is held.
func (m *Manager) letGo(ctx context.Context, l *live, mach vmm.Machine) error {
	ctx, cancel := m.detached(ctx, attachTime)
	defer cancel()
	l.fitting.Lock()
	defer l.fitting.Unlock()
	l.setHeld("")
	l.setDue("")
	if err := mach.Resume(ctx); err != nil {
		return err
	}
	return m.lookWhetherStands(l, mach)
}

// standForRoom makes a machine that was to go on wait for room alone.
func (m *Manager) standForRoom(ctx context.Context, v vm.VM, l *live, err error) (vm.VM, error) {
	switch {
	case err != nil:
		return v, err
	case !v.Held:
		return v, m.pausedError(v)
	}
	now, err := m.change(ctx, v.ID, vm.Change{To: vm.Paused, Reason: m.fullReason(), Found: true})
	if err != nil {
		return v, err
	}
	l.setHeld("")
	return now, m.pausedError(now)
}

// awake lets a machine go on for somebody who uses it.
func (m *Manager) awake(ctx context.Context, v vm.VM) error {
	if !v.Held {
		return m.pausedError(v)
	}
	m.log.Info("resumed by use", "vm", v.ID, "name", v.Name)
	_, err := m.resume(ctx, v.ID)
	return err
}

// setHeld says why a machine is to stay paused; empty: it is not.
func (l *live) setHeld(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = why
}

func (l *live) whyHeld() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

func (l *live) isHeld() bool { return l.whyHeld() != "" }
