package lifecycle

import (
	"context"
	"errors"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/vm"

	"connectrpc.com/connect"
)

// dialForPower is how long stopping tries to reach a guest's agent: one that
// does not answer by then will not, and waiting cannot help.
const dialForPower = 3 * time.Second

// Stop takes a machine down: it asks the guest to sync and power off, and
// kills it when grace has passed (negative: the configured time). It may be
// called again after a failure, and for a machine that an earlier daemon left
// half stopped. A machine that is stopped already is a success.
func (m *Manager) Stop(ctx context.Context, id vm.ID, grace time.Duration) (vm.VM, error) {
	if grace < 0 {
		grace = time.Duration(m.d.Config.Grace)
	}
	return m.stop(ctx, id, grace, "stopped on request")
}

// Kill takes a machine down at once. What the guest had not synced is lost.
func (m *Manager) Kill(ctx context.Context, id vm.ID) (vm.VM, error) {
	return m.stop(ctx, id, 0, "killed on request")
}

func (m *Manager) stop(ctx context.Context, id vm.ID, grace time.Duration, reason string) (vm.VM, error) {
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, err
	}
	if err := ours(v); err != nil {
		return v, err
	}
	if v.State == vm.Stopped || v.State == vm.Created {
		return v, nil
	}
	if grace == 0 {
		m.interrupt(id)
	}
	may := func() error { return nil }
	if grace > 0 {
		may = func() error { return m.mayEnd(v) }
	}
	v, unlock, err := m.beginIf(ctx, id, may, vm.Stopping, reason)
	if errkind.Of(err) == errkind.Conflict {
		// What was interrupted may have stopped it.
		if now, gerr := m.d.Records.Get(ctx, id); gerr == nil && now.State == vm.Stopped {
			return now, nil
		}
	}
	if errkind.Of(err) == errkind.Host && grace == 0 {
		return m.killUnrecorded(ctx, id, err)
	}
	if err != nil {
		return v, err
	}
	defer unlock()
	if grace > 0 {
		off, err := m.powerOff(ctx, v, grace)
		if err != nil {
			return m.standsAfterAll(ctx, v, err)
		}
		if !off {
			reason = "killed: the guest did not power off when asked"
		}
	}
	return m.takeDown(ctx, v, m.undoAll(v), reason, nil)
}

// killUnrecorded kills a machine although that it begins could not be
// recorded. Whoever watches it records its end, as often as it takes.
func (m *Manager) killUnrecorded(ctx context.Context, id vm.ID, cause error) (vm.VM, error) {
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, err
	}
	m.log.Warn("kill without a record of it", "vm", id, "err", cause)
	if err := m.killAll(ctx, v); err != nil {
		return v, err
	}
	v.State, v.StateReason = vm.Stopped, "killed on request"
	return v, nil
}

// powerOff asks the guest to end itself and waits until it has, or until grace
// has passed. It reports whether it did; that it did not is no failure: it is
// killed next. But a guest that has come to stand, because the host's disk is
// full, is an error: killed, it would lose what it has not written.
func (m *Manager) powerOff(ctx context.Context, v vm.VM, grace time.Duration) (off bool, err error) {
	ctx, cancel := m.detached(ctx, grace)
	defer cancel()
	ctx, done := m.interruptible(ctx, v.ID)
	defer done()
	l := m.liveOf(v.ID)
	if l == nil {
		return true, nil // nothing runs
	}
	l.setEnding(true)
	defer l.setEnding(false)
	if err := m.goOnToEnd(ctx, l); err != nil {
		m.log.Warn("guest that stands could not go on to power off", "vm", v.ID, "err", err)
	}
	if err := m.askPowerOff(ctx, l); err != nil {
		m.log.Warn("guest did not take the request to power off", "vm", v.ID, "err", err)
		return false, m.standsError(ctx, l)
	}
	select {
	case <-l.gone:
		return true, nil
	case <-ctx.Done():
		m.log.Warn("guest did not power off in time", "vm", v.ID, "grace", grace)
		return false, m.standsError(ctx, l)
	}
}

// standsError is the error of a machine that cannot power off because it
// stands; nil if it does not stand, or was to be killed meanwhile.
func (m *Manager) standsError(ctx context.Context, l *live) error {
	if _, st := l.standing(); !stands(st) || context.Cause(ctx) == errInterrupted {
		return nil
	}
	v := l.vm()
	v.StateReason = m.fullReason()
	return m.keepsStanding(v)
}

// standsAfterAll records that a machine that was to power off stands, and
// returns why it does. With room again it goes on, and ends.
func (m *Manager) standsAfterAll(ctx context.Context, v vm.VM, cause error) (vm.VM, error) {
	c := vm.Change{To: vm.Paused, Reason: m.fullReason(), Found: true}
	now, err := m.change(context.WithoutCancel(ctx), v.ID, c)
	if err != nil {
		return v, errors.Join(cause, err)
	}
	return now, cause
}

func (m *Manager) askPowerOff(ctx context.Context, l *live) error {
	d, err := m.driver(l.vm().Spec.Driver)
	if err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, dialForPower)
	defer cancel()
	var a guest.Agent
	if a, err = m.agentOf(dctx, l); err != nil {
		return err
	}
	action := wire.PowerRequest_ACTION_POWER_OFF
	if d.Capabilities().EndByReboot {
		action = wire.PowerRequest_ACTION_REBOOT
	}
	if _, err = a.Power(ctx, connect.NewRequest(&wire.PowerRequest{Action: action})); err == nil {
		return nil
	}
	// It may have gone before it could answer; its connection breaks a moment
	// before its process ends.
	select {
	case <-l.gone:
		return nil
	case <-time.After(lastWords):
	case <-ctx.Done():
	}
	return err
}
