package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger/internal/failpoint"
	"banger/internal/trace"
	"banger/internal/undo"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// errStopping says that the daemon ends while a machine is being started.
var errStopping = errors.New("the daemon is stopping; its next start goes on with the machine")

// Start brings up a machine, or takes down whatever it began. It returns when
// the next command in the machine works.
func (m *Manager) Start(ctx context.Context, id vm.ID, p Progress) (vm.VM, error) {
	v, err := m.d.Records.Get(ctx, id)
	if err == nil {
		err = ours(v)
	}
	if err != nil {
		return v, err
	}
	return m.start(ctx, id, nil, p)
}

// start is Start of a machine that will be frozen to freezeTo, if that is not
// nil.
func (m *Manager) start(ctx context.Context, id vm.ID, freezeTo *vmm.Frozen, p Progress) (vm.VM, error) {
	defer trace.Span(ctx, trace.Daemon, "start")()
	v, b, err := m.prepare(ctx, id, p)
	if err != nil {
		return v, err
	}
	b.freezeTo = freezeTo
	v, unlock, err := m.begin(ctx, id, vm.Starting, "")
	if err != nil {
		return v, err
	}
	defer unlock()
	ctx, done := m.interruptible(ctx, id)
	defer done()

	var u undo.Stack
	if warm(v) && b.template == nil {
		v, err = m.makeCold(ctx, v, b)
	}
	if err == nil {
		err = m.bringUp(ctx, v, b, &u)
	}
	if err != nil && b.template != nil && ctx.Err() == nil && m.ctx.Err() == nil {
		v, err = m.bootAfterAll(ctx, v, b, &u, err)
	}
	if err != nil {
		if m.ctx.Err() != nil && v.Purpose == vm.ForUser {
			return v, errStopping // as after a crash: the next daemon goes on
		}
		return m.takeDown(ctx, v, &u, "", err)
	}
	var none string
	up, err := m.change(context.WithoutCancel(ctx), id, vm.Change{To: vm.Running, Started: true, LastError: &none})
	if err != nil {
		return m.takeDown(ctx, v, &u, "", err)
	}
	m.touchID(id)
	m.log.Info("state", "vm", id, "name", v.Name, "state", vm.Running)
	if b.template != nil && v.Purpose == vm.ForUser {
		m.finishSoon(v)
	}
	return up, nil
}

// bringUp does the steps of a start; u undoes what was begun of them.
func (m *Manager) bringUp(ctx context.Context, v vm.VM, b *boot, u *undo.Stack) error {
	for _, s := range m.steps(v, b) {
		s.arm(u)
		if err := try(ctx, s); err != nil {
			if context.Cause(ctx) == errInterrupted {
				err = errInterrupted
			}
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// Restart stops a machine as [Manager.Stop] does, if it is up, and starts it.
// If it cannot be started, it stays stopped.
func (m *Manager) Restart(ctx context.Context, id vm.ID, grace time.Duration, p Progress) (vm.VM, error) {
	// Two at once follow one another: what one has stopped the other starts.
	unlock, err := m.restarts.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, err
	}
	p("stop "+v.Name, "", 0, 0)
	if v, err = m.Stop(ctx, id, grace); err != nil {
		return v, err
	}
	return m.Start(ctx, id, p)
}

// try does one step.
func try(ctx context.Context, s step) error {
	if err := failpoint.Hit("start/" + s.name + "/before"); err != nil {
		return err
	}
	if err := s.do(ctx); err != nil {
		return err
	}
	return failpoint.Hit("start/" + s.name + "/after")
}

// prepare gets what a start needs that is not the machine's own, outside its
// lock: pulling a kernel may take long.
func (m *Manager) prepare(ctx context.Context, id vm.ID, p Progress) (vm.VM, *boot, error) {
	defer trace.Span(ctx, trace.Daemon, "prepare")()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, nil, err
	}
	// One that is being stopped will be stopped by the time it is ours.
	if err := v.Check(vm.Starting); err != nil && v.State != vm.Stopping {
		return v, nil, err
	}
	if err := m.roomToStart(); err != nil {
		return v, nil, err
	}
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return v, nil, err
	}
	if err := d.Check(ctx); err != nil {
		return v, nil, err
	}
	b := &boot{progress: p, fresh: v.State == vm.Created}
	if b.ground.image, err = m.d.Images.Version(ctx, v.Spec.Image, v.Spec.ImageID); err != nil {
		return v, nil, err
	}
	if b.kernel, err = m.d.Kernels.Get(ctx, v.Spec.Kernel); err != nil {
		return v, nil, err
	}
	return v, b, m.prepareTemplate(ctx, v, b)
}

// takeDown undoes what u holds and records where that left the machine: with
// cause nil it was meant to be taken down, for reason.
func (m *Manager) takeDown(ctx context.Context, v vm.VM, u *undo.Stack, reason string, cause error) (vm.VM, error) {
	c := vm.Change{To: vm.Stopped, Reason: reason}
	if cause != nil {
		c.Reason = "start failed"
	}
	undoErr := u.Unwind(ctx)
	if undoErr != nil {
		c.To, c.Reason = vm.Faulty, "taking down failed"
	}
	if why := errors.Join(cause, undoErr); why != nil {
		text := why.Error()
		c.LastError = &text
	}
	// Record it even if whoever asked has gone away.
	down, err := m.change(context.WithoutCancel(ctx), v.ID, c)
	if err == nil {
		v = down
		m.log.Info("state", "vm", v.ID, "name", v.Name, "state", c.To, "reason", c.Reason)
	}
	return v, errors.Join(cause, undoErr, err)
}
