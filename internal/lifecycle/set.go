package lifecycle

import (
	"context"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/vm"
)

// Set changes the size of a machine that is stopped; zero leaves a part as it
// is. A work disk is checked and grown before that is recorded, and cannot
// shrink. After a failure Set may be called again.
func (m *Manager) Set(ctx context.Context, id vm.ID, n vm.Size) (vm.VM, error) {
	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return vm.VM{}, err
	}
	defer unlock()
	v, err := m.d.Records.Get(ctx, id)
	if err != nil {
		return v, err
	}
	if err := v.CheckResizable(); err != nil {
		return v, err
	}
	if n.DiskBytes != 0 && n.DiskBytes < v.Spec.DiskBytes {
		return v, errkind.New(errkind.Usage, "work disk of %s: it has %s, and can only grow", config.Size(n.DiskBytes), config.Size(v.Spec.DiskBytes))
	}
	v.Spec = v.Spec.Resized(n)
	if err := m.checkSizes(v.Spec); err != nil {
		return v, err
	}
	if n.DiskBytes != 0 {
		m.endReading(id)
		if err := m.growDisk(ctx, v); err != nil {
			return v, err
		}
	}
	if v, err = m.d.Records.Resize(ctx, id, n); err != nil {
		return v, err
	}
	m.log.Info("size", "vm", id, "name", v.Name, "vcpus", v.Spec.VCPUs, "memory", v.Spec.MemoryBytes, "disk", v.Spec.DiskBytes)
	return v, nil
}

// growDisk makes the work disk as large as v says. That of a machine that was
// never started may not be there yet. One that is to be restored is made anew: the
// template's guest has its file system mounted, and grows it itself.
func (m *Manager) growDisk(ctx context.Context, v vm.VM) error {
	l := m.workLayer(v)
	if warm(v) {
		t, err := m.d.Templates.Get(ctx, v.Template)
		if err != nil {
			return err
		}
		l.Template = t.Work()
		if err := m.d.Work.Delete(ctx, l); err != nil {
			return err
		}
	}
	if v.StartedAt.IsZero() {
		if err := m.d.Work.Create(ctx, l); err != nil || warm(v) {
			return err
		}
	}
	return m.d.Work.Grow(ctx, l)
}
