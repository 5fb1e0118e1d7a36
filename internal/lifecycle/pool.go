package lifecycle

import (
	"context"
	"errors"
	"time"

	"banger/internal/errkind"
	"banger/internal/failpoint"
	"banger/internal/vm"
)

// The pool holds machines that are restored, have been used once, and stand: what
// makes the first command in a restored machine slow is behind them. They are
// machines like others, with an identity of their own but for the name, which
// their user gives them. Who asks for a machine that one of them is, claims it.

const (
	// poolReason is why a machine of the pool is paused.
	poolReason = "it waits in the pool"
	// refillAfter is when the next one is made, should the run that claimed one
	// not have ended before.
	refillAfter = 2 * time.Second
	// A machine is added to the pool while a fourth of the host's memory stays
	// available, and the pool is drained when less than an eighth is.
	fillAbove, drainBelow = 4, 8
)

// Used tells that a run of v has ended, which may be gone: what makes the next
// one like it quicker is made in the background.
func (m *Manager) Used(v vm.VM) {
	if !m.d.Config.Templates || v.Purpose != vm.ForUser || v.StartedAt.IsZero() {
		return
	}
	m.background(func() {
		id := v.Template
		if id == "" {
			id = m.makeTemplateOf(v)
		}
		if id != "" {
			m.fillPool(id, v.Spec)
		}
	})
}

// refill makes another machine in the place of one that was claimed, once that has
// had time to begin what it is for.
func (m *Manager) refill(template string, s vm.Spec) {
	m.background(func() {
		select {
		case <-time.After(refillAfter):
			m.fillPool(template, s)
		case <-m.ctx.Done():
		}
	})
}

// fillPool makes machines like s until as many of the template wait as should.
func (m *Manager) fillPool(template string, s vm.Spec) {
	m.pool.asked(template)
	if !m.pool.one.TryLock() {
		return // who holds it, or the next use, sees to it
	}
	defer m.pool.one.Unlock()
	for m.pool.count(template) < m.d.Config.Pool && m.ctx.Err() == nil {
		if !m.memoryAbove(fillAbove, s.MemoryBytes) || m.roomToStart() != nil {
			return
		}
		if err := m.addToPool(m.ctx, template, s); err != nil {
			if m.ctx.Err() == nil {
				m.log.Warn("add a machine to the pool", "image", s.Image, "err", err)
			}
			return
		}
	}
}

// memoryAbove reports whether a part of the host's memory stays available when
// need bytes of it are taken.
func (m *Manager) memoryAbove(part, need int64) bool {
	available, err := m.d.Host.AvailableBytes()
	if err != nil {
		m.log.Warn("look how much memory is available", "err", err)
		return false
	}
	return available-need > m.d.Host.MemoryBytes()/part
}

// addToPool makes one machine that waits. On an error nothing is left.
func (m *Manager) addToPool(ctx context.Context, template string, s vm.Spec) (err error) {
	s.ImageID, s.Labels, s.AutoPause = "", nil, 0
	v, err := m.Create(ctx, Request{Name: "pool-" + string(vm.NewID()), Spec: s, purpose: vm.ForPool}, silently)
	if err != nil {
		return err
	}
	id := v.ID // a start that fails early returns none
	defer func() {
		if err != nil {
			err = errors.Join(err, m.discard(context.WithoutCancel(ctx), id))
		}
	}()
	if v.Template != template {
		return errors.New("its template is another by now")
	}
	if v, err = m.start(ctx, v.ID, nil, silently); err != nil {
		return err
	}
	if v.Template == "" {
		return errors.New("it was not restored but booted")
	}
	if err := m.rehearse(ctx, v); err != nil {
		return err
	}
	if err := m.park(ctx, v); err != nil {
		return err
	}
	m.log.Info("waits in the pool", "vm", v.ID, "template", template)
	return nil
}

// silently is the progress of work that nobody waits for.
func silently(string, string, int64, int64) {}

// park makes a machine wait for its user.
func (m *Manager) park(ctx context.Context, v vm.VM) error {
	unlock, err := m.locks.Lock(ctx, v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	l, mach, err := m.answering(v)
	if err != nil {
		return err
	}
	if err := m.makeStand(ctx, l, mach, poolReason); err != nil {
		return err
	}
	// Made while nobody else wanted a processor; from here on it is as quick as
	// any other.
	if err := m.endIdle(ctx, v); err != nil {
		return err
	}
	if err := failpoint.Hit("pool/stands"); err != nil {
		return err
	}
	// Whoever claims it waits for its lock.
	m.pool.add(v.Template, v.ID)
	// Recorded last: one that does not stand, or may be half ready, is never
	// found waiting.
	_, err = m.change(ctx, v.ID, vm.Change{To: vm.Paused, Reason: poolReason, Held: true})
	return errors.Join(err, failpoint.Hit("pool/recorded"))
}

func (m *Manager) endIdle(ctx context.Context, v vm.VM) error {
	p, err := m.find(ctx, v)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.EndIdle()
}

// discard deletes a machine that banger kept for itself.
func (m *Manager) discard(ctx context.Context, id vm.ID) error {
	_, err := m.delete(ctx, id, func(vm.VM) error { return nil })
	if errkind.Of(err) == errkind.NotFound {
		return nil
	}
	return err
}

func (m *Manager) discardLater(id vm.ID) {
	if err := m.discard(m.ctx, id); err != nil && m.ctx.Err() == nil {
		m.log.Warn("delete a machine of banger's own", "vm", id, "err", err)
	}
}

// DrainPool deletes the machines that wait in the pool, and returns how many
// there were. One that is being made for it may come after.
func (m *Manager) DrainPool(ctx context.Context) (n int, err error) {
	var errs []error
	for _, id := range m.pool.takeAll(func(string, time.Time) bool { return true }) {
		if err := m.discard(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// clear deletes the machines that banger keeps for itself and that stand in the way
// of something: those that wait in the pool, and those that become templates.
func (m *Manager) clear(ctx context.Context, inTheWay func(vm.VM) bool) {
	vms, err := m.d.Records.List(ctx)
	if err != nil {
		return // who asked finds out
	}
	for _, v := range vms {
		if v.Purpose == vm.ForUser || !inTheWay(v) {
			continue
		}
		if v.Purpose == vm.ForTemplate {
			m.making.giveUp(errInTheWay)
		}
		m.pool.drop(v.Template, v.ID)
		m.interrupt(v.ID)
		m.discardLater(v.ID)
	}
}

// TrimPool deletes the machines that wait for nobody: those of templates that were
// not asked for in a long time, and all where memory is short. The daemon calls it
// from time to time.
func (m *Manager) TrimPool() {
	short := !m.pool.empty() && !m.memoryAbove(drainBelow, 0)
	limit := time.Duration(m.d.Config.PoolIdle)
	for _, id := range m.pool.takeAll(func(_ string, used time.Time) bool {
		return short || limit > 0 && time.Since(used) > limit
	}) {
		m.background(func() { m.discardLater(id) })
	}
}
