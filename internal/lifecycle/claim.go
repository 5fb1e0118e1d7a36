package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"banger/internal/failpoint"
	"banger/internal/trace"
	"banger/internal/vm"
)

// Claim gives a user the machine that he asks for, if one waits in the pool that
// is it; false: none does. It runs then, and the next command works.
func (m *Manager) Claim(ctx context.Context, r Request) (vm.VM, bool, error) {
	defer trace.Span(ctx, trace.Daemon, "claim")()
	if m.pool.empty() || r.From != FromAny && r.From != FromPool {
		return vm.VM{}, false, nil
	}
	spec, err := m.complete(ctx, r)
	if err != nil {
		return vm.VM{}, false, err
	}
	if err := m.roomToStart(); err != nil {
		return vm.VM{}, false, err
	}
	template, ok := m.templateOf(ctx, spec)
	for ok {
		var id vm.ID
		if id, ok = m.pool.take(template); !ok {
			break
		}
		v, err := m.claim(ctx, id, r, spec)
		switch {
		case err == nil:
			m.refill(template, spec)
			return v, true, nil
		case errors.Is(err, errOtherSize):
			m.pool.add(template, id)
			return vm.VM{}, false, nil
		case errors.Is(err, errNotMine) && (ctx.Err() != nil || m.taken(ctx, r.Name)):
			m.pool.add(template, id)
			return vm.VM{}, false, err
		}
		m.log.Warn("claim a machine of the pool", "vm", id, "err", err)
		m.discardLater(id) // with the name, if it got that
	}
	return vm.VM{}, false, nil
}

var (
	// errOtherSize says that what waits has not the work disk that is asked for.
	errOtherSize = errors.New("its work disk has another size")
	// errNotMine says that it could not be recorded whose a machine is.
	errNotMine = errors.New("it is still the pool's")
)

// taken reports whether a machine has a name; none has an empty one.
func (m *Manager) taken(ctx context.Context, name string) bool {
	if name == "" {
		return false
	}
	taken, err := m.d.Records.HasName(ctx, name)
	return err == nil && taken
}

// templateOf is the template of which a new machine would be restored.
func (m *Manager) templateOf(ctx context.Context, s vm.Spec) (id string, ok bool) {
	i, err := m.d.Images.Get(ctx, s.Image)
	if err != nil {
		return "", false // it is to be built
	}
	if s.Kernel == "" {
		s.Kernel = i.DefaultKernel
	}
	k, err := m.d.Kernels.Get(ctx, s.Kernel)
	if err != nil {
		return "", false
	}
	key, ok, err := m.keyOf(ctx, s, i, k)
	if err != nil || !ok {
		return "", false
	}
	return key.ID(), true
}

// claim makes one machine of the pool a user's. The record comes first: after a
// crash it is his, or the pool's, whole.
func (m *Manager) claim(ctx context.Context, id vm.ID, r Request, s vm.Spec) (vm.VM, error) {
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, err
	}
	if v.Spec.DiskBytes != s.DiskBytes {
		return v, errOtherSize
	}
	l, mach, err := m.answering(v)
	if err != nil {
		return v, err
	}
	called := l.calledSo()
	if v, err = m.recordClaim(ctx, id, r, s, called); err != nil {
		return v, fmt.Errorf("%w: %w", errNotMine, err)
	}
	if err := failpoint.Hit("claim/recorded"); err != nil {
		return v, err
	}
	l.rec.Store(&v)
	l.autoPause.Store(int64(v.Spec.AutoPause))
	m.touch(l)
	if err := m.letGo(ctx, l, mach); err != nil {
		return v, err
	}
	if v.Name != called {
		l.setDue(v.Name)
	}
	m.finishSoon(v) // ends that the agent comes first
	m.log.Info("claimed", "vm", v.ID, "name", v.Name)
	if err := failpoint.Hit("claim/resumed"); err != nil {
		return v, err
	}
	return v, m.introduce(ctx, v, l)
}

// introduce tells others the name of a machine that was claimed. Of one that is
// leased to a call its guest is told with the command.
func (m *Manager) introduce(ctx context.Context, v vm.VM, l *live) error {
	if v.Ephemeral {
		m.background(func() { m.addKnownHost(v) })
		return nil
	}
	m.addKnownHost(v)
	a, err := m.agentOf(ctx, l)
	if err == nil {
		m.tell(ctx, l, a)
	}
	return err
}

func (m *Manager) addKnownHost(v vm.VM) {
	if err := m.d.KnownHosts.Add(knownHost(v)); err != nil {
		m.log.Warn("tell SSH clients of a machine", "vm", v.ID, "err", err)
	}
}

// recordClaim records whose a machine is, under a name that nobody has: if none is
// asked for, the one that its guest calls itself by, unless that is empty or taken
// by now.
func (m *Manager) recordClaim(ctx context.Context, id vm.ID, r Request, s vm.Spec, called string) (vm.VM, error) {
	c := vm.Claim{Labels: s.Labels, Ephemeral: r.Ephemeral, AutoPause: s.AutoPause}
	return named(r.Name, called, func(name string) (vm.VM, error) {
		c.Name = name
		return m.d.Records.Claim(ctx, id, c)
	})
}

// setCalled notes what a guest calls itself that waits for its user.
func (l *live) setCalled(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.called = name
}

// calledSo is what was noted last; empty after the daemon was started again.
func (l *live) calledSo() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.called
}
