package lifecycle

import (
	"context"
	"errors"
	"os"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// attachTime bounds reconnecting to a VMM that is there.
const attachTime = 3 * time.Second

// Recover finds the machines of earlier daemons and makes host and records
// agree again. It returns when all is done, or when limit has passed: the rest
// goes on in the background, each machine locked until its turn is over.
func (m *Manager) Recover(ctx context.Context, limit time.Duration) error {
	facts, err := m.lookAtAll(ctx)
	if err != nil {
		return err
	}
	subnet, err := m.d.Records.Subnet(ctx)
	if err != nil {
		return err
	}
	lost, err := m.recoverNetwork(ctx, subnet, facts)
	if err != nil {
		m.log.Error("bring the network into agreement", "err", err)
	}
	done := make(chan struct{}, len(facts))
	for _, mv := range plan(facts) {
		if err := m.begun(ctx, mv, done); err != nil {
			return err
		}
	}
	// Behind those who have the machines' locks by now.
	for _, id := range lost {
		m.background(func() { m.tapGone(m.ctx, vm.ID(id)) })
	}
	m.background(m.watchTaps)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for range facts {
		select {
		case <-done:
		case <-timer.C:
			m.log.Warn("recovery goes on in the background", "after", limit)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// lookAtAll finds out what of the records is true.
func (m *Manager) lookAtAll(ctx context.Context) ([]fact, error) {
	records, err := m.d.Records.List(ctx)
	if err != nil {
		return nil, err
	}
	facts := make([]fact, 0, len(records))
	for _, v := range records {
		f, err := m.lookAt(ctx, v)
		if err != nil {
			return nil, err
		}
		facts = append(facts, f)
	}
	m.warnOfStrays(records)
	m.pruneLimits(records)
	if err := m.writeKnownHosts(records); err != nil {
		// The disk may be full, and who is to make room needs a daemon.
		m.log.Warn("tell SSH clients of machines", "err", err)
	}
	return facts, nil
}

// begun locks a machine and begins what was decided for it. done is told of
// the end.
func (m *Manager) begun(ctx context.Context, mv move, done chan<- struct{}) error {
	if mv.do == keep {
		done <- struct{}{}
		return nil
	}
	m.log.Info("recover", "vm", mv.v.ID, "name", mv.v.Name, "state", mv.v.State, "running", mv.running, "do", mv.do, "why", mv.why)
	unlock, err := m.locks.Lock(ctx, mv.v.ID)
	if err != nil {
		return err
	}
	began := m.background(func() {
		defer func() { unlock(); done <- struct{}{} }()
		if err := m.carryOut(m.ctx, mv); err != nil && m.ctx.Err() == nil {
			m.log.Error("recover", "vm", mv.v.ID, "do", mv.do, "err", err)
		}
	})
	if !began {
		unlock()
		return errStopping
	}
	return nil
}

// lookAt finds out what of a record is true.
func (m *Manager) lookAt(ctx context.Context, v vm.VM) (fact, error) {
	f := fact{v: v}
	h, why := m.d.Handles.Load(v.ID)
	if why != "" {
		m.log.Warn("handles cannot be used; looking for what they named", "vm", v.ID, "why", why)
		f.reboot = h.OtherBoot
	}
	if _, err := m.driver(v.Spec.Driver); err != nil {
		f.foreign = true
		return f, nil
	}
	f.left = exists(m.paths(v).Run) || exists(m.paths(v).Handles()) || exists(m.d.Limits.Path(string(v.ID)))
	p, err := m.find(ctx, v)
	switch {
	case err == nil:
		p.Close()
		f.running = true
	case !errors.Is(err, vmm.ErrNoProcess):
		return f, err
	default:
		f.memory = m.outOfMemory(v.ID)
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// carryOut does what was decided for one machine, whose lock is held.
func (m *Manager) carryOut(ctx context.Context, mv move) error {
	v := mv.v
	switch mv.do {
	case adopt:
		err := m.readopt(ctx, v)
		if errors.Is(err, vmm.ErrNoProcess) {
			return m.found(ctx, v, "the VMM ended while the daemon started")
		}
		return err // it runs: never taken down for an error of ours
	case awaitGuest:
		return m.goOn(ctx, v, mv.why)
	case takeDown:
		return m.found(ctx, v, mv.why)
	case finishStop:
		if mv.running && m.readopt(ctx, v) == nil {
			if _, err := m.powerOff(ctx, v, time.Duration(m.d.Config.Grace)); err != nil {
				_, err = m.standsAfterAll(ctx, v, err)
				return err
			}
		}
		_, err := m.takeDown(ctx, v, m.undoAll(v), mv.why, nil)
		return err
	case finishDelete:
		if v.State != vm.Deleting {
			var err error
			if v, err = m.change(ctx, v.ID, vm.Change{To: vm.Deleting, Found: true}); err != nil {
				return err
			}
		}
		_, err := m.remove(ctx, v)
		return err
	}
	return nil
}

// found takes down what is left of a machine and records that it was found so.
func (m *Manager) found(ctx context.Context, v vm.VM, why string) error {
	c := vm.Change{To: vm.Stopped, Reason: why, Found: true}
	if v.State == vm.Created {
		c.To = vm.Created
	}
	undoErr := m.undoAll(v).Unwind(ctx)
	if undoErr != nil {
		text := undoErr.Error()
		c.To, c.Reason, c.LastError = vm.Faulty, "taking down failed", &text
	}
	_, err := m.change(ctx, v.ID, c)
	return errors.Join(undoErr, err)
}

// readopt takes up a machine whose process was found.
func (m *Manager) readopt(ctx context.Context, v vm.VM) error {
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return err
	}
	actx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	mach, err := d.Attach(actx, m.ref(v))
	if err != nil {
		// The process is there all the same; its end can be watched.
		m.log.Warn("attach", "vm", v.ID, "err", err)
		mach = nil
	}
	noted, err := m.adopt(ctx, v, d, mach)
	if noted != nil {
		m.log.Warn("handles could not be written", "vm", v.ID, "err", noted)
	}
	if err == nil && v.Template != "" {
		m.goOnAsRestored(v)
	}
	return err
}

// goOnAsRestored sees to what an earlier daemon may not have come to, of a machine
// that was restored.
func (m *Manager) goOnAsRestored(v vm.VM) {
	if l := m.liveOf(v.ID); l != nil {
		l.setDue(v.Name)
	}
	m.finishSoon(v)
}

// goOn waits for a guest that an earlier daemon was starting.
func (m *Manager) goOn(ctx context.Context, v vm.VM, why string) error {
	err := m.readopt(ctx, v)
	if err == nil {
		err = m.firstContact(ctx, v, &boot{})
	}
	if err != nil {
		if ctx.Err() != nil {
			return err // the daemon ends again
		}
		m.log.Warn("start goes on", "vm", v.ID, "err", err)
		return m.found(ctx, v, why)
	}
	var none string
	_, err = m.change(ctx, v.ID, vm.Change{To: vm.Running, Started: true, LastError: &none})
	m.touchID(v.ID)
	return err
}

// warnOfStrays names directories of machines that no record owns. No crash of
// ours leaves one: a record is made before its directory and goes after it. So
// the database was lost or replaced, and the disks in there may be all that is
// left of somebody's work: they are never removed by themselves.
func (m *Manager) warnOfStrays(records []vm.VM) {
	owned := make(map[string]bool)
	for _, v := range records {
		owned[string(v.ID)] = true
	}
	entries, err := os.ReadDir(m.d.Paths.VMs())
	if err != nil {
		m.log.Warn("look for directories that no record owns", "err", err)
	}
	for _, e := range entries {
		if !owned[e.Name()] {
			m.log.Warn("a machine's directory that no record owns; remove it by hand if nothing in it is wanted",
				"dir", m.d.Paths.VM(e.Name()).Dir)
		}
	}
}
