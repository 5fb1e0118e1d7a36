package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"banger/internal/disk"
	"banger/internal/failpoint"
	"banger/internal/guest/wire"
	"banger/internal/handle"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/template"
	"banger/internal/trace"
	"banger/internal/undo"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A step is one thing a running machine needs on the host. What outlives a
// stop (disks, records) is not a step; Delete removes it.
//
// undo finds what to remove from the machine's record alone. It succeeds when
// do never ran, ran halfway, or ran in an earlier life of the daemon.
type step struct {
	name     string
	do, undo func(context.Context) error
	// early says that undo need not wait for those of later steps: a VMM that
	// is about to end does not keep its tap.
	early bool
}

// A boot is what the steps of one start hand on to each other.
type boot struct {
	ground   ground
	kernel   kernel.Kernel
	template *template.Template // from which it is restored; nil: it boots
	freezeTo *vmm.Frozen        // where it will be frozen; nil: it will not
	fresh    bool               // no earlier start can have touched its disks
	root     disk.Device
	progress Progress
	console  int64 // where in the console's log it begins

	// Of a machine with a network.
	tap       string
	nic       wire.NIC
	resolvers []string
}

// steps lists what starting takes, in order. To undo, b may be nil.
func (m *Manager) steps(v vm.VM, b *boot) []step {
	steps := []step{
		{name: "disk", do: m.attachDisk(v, b), undo: m.detachDisk(v)},
		{name: "network", do: m.attachNetwork(v, b), undo: m.detachNetwork(v), early: true},
		{name: "boot", do: m.writeBoot(v, b), undo: m.removeBoot(v), early: true},
		{name: "vmm", do: m.launch(v, b), undo: m.kill(v)},
		{name: "guest", do: m.awaitGuest(v, b), undo: func(context.Context) error { return nil }},
	}
	if b != nil && b.template != nil { // what it boots with was read long ago
		steps[2].do, steps[4].do = func(context.Context) error { return nil }, m.identify(v, b)
	}
	for i, s := range steps {
		steps[i].do, steps[i].undo = m.timed(v, s.name, s.do), m.timed(v, "undo "+s.name, s.undo)
	}
	return steps
}

// timed logs, and traces, how long f took.
func (m *Manager) timed(v vm.VM, name string, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		defer trace.Span(ctx, trace.Daemon, name)()
		began := time.Now()
		err := f(ctx)
		m.log.Debug("step", "vm", v.ID, "step", name, "took", time.Since(began))
		return err
	}
}

// undoAll arms the undo of every step, for a machine that is to be taken down
// however far it came.
func (m *Manager) undoAll(v vm.VM) *undo.Stack {
	var u undo.Stack
	for _, s := range m.steps(v, nil) {
		s.arm(&u)
	}
	return &u
}

// arm arms the step's undo.
func (s step) arm(u *undo.Stack) {
	if s.early {
		u.PushEarly(s.name, s.undo)
	} else {
		u.Push(s.name, s.undo)
	}
}

func (m *Manager) attachDisk(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := m.driver(v.Spec.Driver)
		if err != nil {
			return err
		}
		l := m.rootLayer(v, b.ground)
		if b.template != nil && !b.fresh {
			if err := m.dropDisks(ctx, v); err != nil {
				return err
			}
		}
		if v.StartedAt.IsZero() {
			// A crash in the middle of create leaves a record whose disks
			// may not be there yet. Later a disk that is missing is a loss
			// that must be told, not papered over with an empty one.
			if err := m.makeDisks(ctx, v, b.ground); err != nil {
				return err
			}
		}
		if b.root, err = d.Layers.Attach(ctx, l); err != nil {
			return err
		}
		return m.d.Handles.Update(v.ID, func(h *handle.Handle) {
			h.BaseLoop, h.CowLoop = b.root.BaseLoop, b.root.CowLoop
			h.DMName, h.DMDev = b.root.DMName, b.root.DMDev
		})
	}
}

// tapOf is the name of a machine's tap, "" if it has none.
func (m *Manager) tapOf(v vm.VM) string {
	if v.Spec.Network != network.NAT {
		return ""
	}
	return network.TapName(m.d.Paths.Tag, string(v.ID))
}

// noteTap writes down the tap before there is a process that holds it.
func (m *Manager) noteTap(id vm.ID, tap string) error {
	return m.d.Handles.Update(id, func(h *handle.Handle) { h.TapDevice = tap })
}

func (m *Manager) detachDisk(v vm.VM) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := m.driver(v.Spec.Driver)
		if err != nil {
			return err
		}
		err = d.Layers.Detach(ctx, m.rootLayer(v, ground{}))
		if err != nil {
			return err
		}
		return m.d.Handles.Remove(v.ID)
	}
}

func (m *Manager) writeBoot(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		w, err := m.bundle(v, b)
		if err != nil {
			return err
		}
		return m.d.Boot.Write(ctx, m.paths(v).Initrd(), b.kernel.BootModules, w, v.UID)
	}
}

func (m *Manager) removeBoot(v vm.VM) func(context.Context) error {
	return func(context.Context) error { return m.d.Boot.Remove(m.paths(v).Initrd()) }
}

func (m *Manager) launch(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := m.driver(v.Spec.Driver)
		if err != nil {
			return err
		}
		if err := ownedDir(m.paths(v).Run, v.UID); err != nil {
			return err
		}
		verb := "boot "
		if b.template != nil {
			verb = "restore "
		}
		b.progress(verb+v.Name, "", 0, 0)
		b.console = m.consoleSize(v)
		s := m.vmmSpec(v, b)
		s.Cgroup = m.bound(v, d.Capabilities())
		if err := failpoint.Hit("start/vmm/bound"); err != nil {
			return err
		}
		mach, err := d.Launch(ctx, s)
		if err != nil {
			if why := m.outOfMemory(v.ID); why != "" {
				return fmt.Errorf("%s: %w", why, err)
			}
			return err
		}
		noted, err := m.adopt(ctx, v, d, mach)
		if errors.Is(err, vmm.ErrNoProcess) {
			return errors.New("the VMM ended at once")
		}
		return errors.Join(err, noted)
	}
}

// adopt takes up the machine whose VMM is mach (nil: its API did not answer):
// it finds its process, watches it, and writes down how to find it again. That
// writing failed (noted) is told apart: without the file the machine is found
// all the same.
func (m *Manager) adopt(ctx context.Context, v vm.VM, d Driver, mach vmm.Machine) (noted, err error) {
	p, err := m.findOf(ctx, v, d, mach)
	if err != nil {
		if mach != nil {
			mach.Close()
		}
		return nil, err
	}
	pid, started := p.PID(), p.StartTime()
	m.watch(v, p, mach)
	version, err := d.Version(ctx)
	if err != nil {
		m.log.Warn("version of the VMM", "vm", v.ID, "err", err)
	}
	return m.d.Handles.Update(v.ID, func(h *handle.Handle) {
		h.PID, h.StartTime = pid, started
		h.Driver, h.DriverVersion = d.Name(), version
		h.TapDevice = m.tapOf(v)
		if mach != nil {
			h.VsockCID = mach.Agent().CID
		}
	}), nil
}

// kill ends the machine's VMM, whoever started it and whenever.
func (m *Manager) kill(v vm.VM) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := m.driver(v.Spec.Driver)
		if err != nil {
			return err
		}
		m.forget(v.ID)
		if err := m.killAll(ctx, v); err != nil {
			return err
		}
		return errors.Join(m.d.Limits.Remove(ctx, string(v.ID)), d.CleanUp(ctx, m.ref(v)), os.RemoveAll(m.paths(v).Run))
	}
}

// killAll kills every process that is this machine's VMM; more than one there
// is only if a VMM did what it should not.
func (m *Manager) killAll(ctx context.Context, v vm.VM) error {
	for {
		p, err := m.find(ctx, v)
		if errors.Is(err, vmm.ErrNoProcess) {
			return nil
		}
		if err != nil {
			return err
		}
		end := trace.Span(ctx, trace.VMM, "kill")
		err = p.Kill(ctx)
		end()
		pid := p.PID()
		p.Close()
		if err != nil {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
}

func (m *Manager) awaitGuest(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		defer trace.Span(ctx, trace.Guest, "boot")()
		return m.firstContact(ctx, v, b)
	}
}

// ownedDir makes a directory that only uid may use, or gives it one of ours.
func ownedDir(dir string, uid uint32) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Lchown(dir, int(uid), int(uid))
}
