package lifecycle

import (
	"context"
	"errors"
	"os"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/handle"
	"banger/internal/vm"
)

// Details is what can be told of a machine beyond its record.
type Details struct {
	Paths         config.VMPaths
	SystemOverlay string
	WorkDisk      string
	Cgroup        string        // where the VMM's limits are; empty: the host has none
	Handle        handle.Handle // zero while the machine does not run
}

// Details derives where a machine's things are.
func (m *Manager) Details(v vm.VM) Details {
	d := Details{Paths: m.paths(v), WorkDisk: m.d.Work.Path(m.workLayer(v)), Cgroup: m.d.Limits.Path(string(v.ID))}
	if drv, err := m.driver(v.Spec.Driver); err == nil {
		d.SystemOverlay = drv.Layers.Path(m.rootLayer(v, ground{}))
	}
	if m.liveOf(v.ID) != nil {
		d.Handle = m.d.Handles.Get(v.ID)
	}
	return d
}

// Resolve finds a machine by name or by an unambiguous prefix of its id.
func (m *Manager) Resolve(ctx context.Context, ref string) (vm.VM, error) {
	return m.d.Records.Resolve(ctx, ref)
}

// List returns every machine.
func (m *Manager) List(ctx context.Context) ([]vm.VM, error) {
	return m.d.Records.List(ctx)
}

// DeleteImage removes an image that no machine stands on.
func (m *Manager) DeleteImage(ctx context.Context, name string) error {
	return m.unused(ctx, "image", name, func(v vm.VM) bool { return v.Spec.Image == name }, m.d.Images.Delete)
}

// DeleteKernel removes a kernel that no machine uses.
func (m *Manager) DeleteKernel(ctx context.Context, name string) error {
	return m.unused(ctx, "kernel", name, func(v vm.VM) bool { return v.Spec.Kernel == name }, m.d.Kernels.Delete)
}

func (m *Manager) unused(ctx context.Context, noun, name string, uses func(vm.VM) bool, remove func(context.Context, string) error) error {
	m.clear(ctx, uses)
	m.parts.Lock()
	defer m.parts.Unlock()
	vms, err := m.d.Records.List(ctx)
	if err != nil {
		return err
	}
	for _, v := range vms {
		if uses(v) {
			return errkind.WithHint(errkind.New(errkind.Conflict, "%s %q is in use by machine %q", noun, name, v.Name),
				"banger vm delete "+v.Name)
		}
	}
	return remove(ctx, name)
}

// PruneImages removes the versions of images that are neither current nor
// stood on by a machine. That it could not is logged: the next time may.
func (m *Manager) PruneImages(ctx context.Context) {
	m.parts.Lock()
	defer m.parts.Unlock()
	vms, err := m.d.Records.List(ctx)
	if err == nil {
		keep := make(map[string]bool)
		for _, v := range vms {
			keep[v.Spec.ImageID] = true
		}
		err = m.d.Images.Prune(ctx, keep)
	}
	if err != nil {
		m.log.Warn("remove versions of images that nobody stands on", "err", err)
	}
}

// TrimLogs cuts the console logs of running machines to their limit. The
// daemon calls it from time to time.
func (m *Manager) TrimLogs() {
	for _, l := range m.allLive() {
		if err := trimConsole(m.paths(l.vm()).ConsoleLog(), int64(m.d.Config.LogCap)); err != nil && !errors.Is(err, os.ErrNotExist) {
			m.log.Warn("trim the console log", "vm", l.vm().ID, "err", err)
		}
	}
}
