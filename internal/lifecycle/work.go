package lifecycle

import (
	"context"
	"errors"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/vm"
)

// errMayChange is why reading a work disk ends: somebody is about to write it.
var errMayChange = errkind.New(errkind.Conflict, "the machine was started, changed or deleted while its disk was read; ask again")

// A WorkReading is the work disk of a machine that does not run, while it is
// read.
type WorkReading struct {
	disk.Files
	ctx    context.Context
	cancel context.CancelCauseFunc
	end    func()
}

// Check returns nil if what was read so far is what stood on the disk: nobody
// has begun to write it since.
func (r *WorkReading) Check() error { return context.Cause(r.ctx) }

// Close ends the reading. It is called once.
func (r *WorkReading) Close() error {
	r.end()
	return r.Files.Close()
}

// ReadWork opens the work disk of a machine that does not run. Reading keeps
// nobody from starting the machine: whoever reads must call Check after each
// time, before using what was read. A machine that is not stopped is
// [errkind.Conflict].
func (m *Manager) ReadWork(ctx context.Context, id vm.ID) (*WorkReading, error) {
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if v.State != vm.Stopped && v.State != vm.Created {
		return nil, errkind.New(errkind.Conflict, "machine %q is %s: its disk can be read when it is stopped", v.Name, v.State)
	}
	files, err := m.d.Work.Open(ctx, m.workLayer(v))
	if err != nil {
		return nil, err
	}
	r := &WorkReading{Files: files}
	r.ctx, r.cancel = context.WithCancelCause(m.ctx)
	r.end = m.beginReading(id, r)
	return r, nil
}

// beginReading notes a reading until end is called.
func (m *Manager) beginReading(id vm.ID, r *WorkReading) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reading[id] == nil {
		m.reading[id] = make(map[*WorkReading]bool)
	}
	m.reading[id][r] = true
	return func() {
		r.cancel(errors.New("the disk was closed"))
		m.mu.Lock()
		defer m.mu.Unlock()
		if delete(m.reading[id], r); len(m.reading[id]) == 0 {
			delete(m.reading, id)
		}
	}
}

// endReading tells who reads a machine's work disk that it may change from now
// on. Preconditions: the machine is locked.
func (m *Manager) endReading(id vm.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.reading[id] {
		r.cancel(errMayChange)
	}
}
