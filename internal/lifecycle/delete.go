package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"banger/internal/errkind"
	"banger/internal/trace"
	"banger/internal/vm"
)

// deleteTime bounds removing a machine's files and record.
const deleteTime = 30 * time.Second

// Delete takes a machine down without grace and removes it and its disks, for
// good. It returns the machine as it was. It may be called again after a
// failure, and for a machine that an earlier daemon left half deleted.
func (m *Manager) Delete(ctx context.Context, id vm.ID) (vm.VM, error) {
	m.interrupt(id)
	return m.delete(ctx, id, func(vm.VM) error { return nil })
}

// DeleteStopped is [Manager.Delete] for a machine that does not run. One that
// runs by then, or is on its way, is an error of kind [errkind.Conflict].
func (m *Manager) DeleteStopped(ctx context.Context, id vm.ID) (vm.VM, error) {
	return m.delete(ctx, id, func(v vm.VM) error {
		if v.State != vm.Stopped && v.State != vm.Created {
			return errkind.New(errkind.Conflict, "machine %q is %s by now", v.Name, v.State)
		}
		return nil
	})
}

// delete deletes a machine that may be. That it begins may not be recorded on a
// full disk, where deleting is what makes room: a crash in the middle leaves a
// record whose machine is found dead, and can be deleted again.
func (m *Manager) delete(ctx context.Context, id vm.ID, may func(vm.VM) error) (vm.VM, error) {
	defer trace.Span(ctx, trace.Daemon, "delete")()
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err == nil {
		err = may(v)
	}
	if err != nil {
		return v, err
	}
	m.endReading(id)
	now, err := m.change(ctx, id, vm.Change{To: vm.Deleting})
	switch {
	case err == nil:
		m.log.Info("state", "vm", id, "name", v.Name, "state", vm.Deleting)
		return m.remove(ctx, now)
	case errkind.Of(err) == errkind.Host && v.Check(vm.Deleting) == nil:
		m.log.Warn("delete without a record of its beginning", "vm", id, "err", err)
		return m.remove(ctx, v)
	}
	return now, err
}

// remove removes a machine that is recorded as deleting and whose lock is held.
func (m *Manager) remove(ctx context.Context, v vm.VM) (vm.VM, error) {
	if err := m.undoAll(v).Unwind(ctx); err != nil {
		return m.faulty(ctx, v, err)
	}
	ctx, cancel := m.detached(ctx, deleteTime)
	defer cancel()
	if err := m.timed(v, "remove disks", m.removeDisks(v))(ctx); err != nil {
		return m.faulty(ctx, v, fmt.Errorf("disk: %w", err))
	}
	// Both wait for the host's disk.
	var key sync.WaitGroup
	key.Go(func() { m.forgetHostKey(v) })
	err := m.timed(v, "remove record", func(ctx context.Context) error { return m.d.Records.Delete(ctx, v.ID) })(ctx)
	key.Wait()
	if err != nil {
		return v, err
	}
	m.log.Info("deleted", "vm", v.ID, "name", v.Name)
	return v, nil
}

// forgetHostKey removes a machine from the known hosts. The key of one that is no
// more harms nobody: if it cannot be removed, deleting, which is what makes room
// on a full disk, has succeeded all the same.
func (m *Manager) forgetHostKey(v vm.VM) {
	if err := m.d.KnownHosts.Remove(string(v.ID)); err != nil {
		m.log.Warn("forget the host key", "vm", v.ID, "err", err)
	}
}

// faulty records that deleting failed: something may be left on the host.
func (m *Manager) faulty(ctx context.Context, v vm.VM, cause error) (vm.VM, error) {
	text := cause.Error()
	got, err := m.change(context.WithoutCancel(ctx), v.ID,
		vm.Change{To: vm.Faulty, Reason: "deleting failed", LastError: &text})
	if err == nil {
		v = got
	}
	return v, errors.Join(cause, err)
}
