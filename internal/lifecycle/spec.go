package lifecycle

import (
	"context"
	"crypto/md5"
	"encoding/hex"

	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/guest/wire"
	"banger/internal/trace"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Serials by which a guest finds its disks: the order of /dev/vd* may vary.
const (
	rootSerial    = "root"
	workSerial    = "work"
	modulesSerial = "modules"
)

// paths returns the places of one machine.
func (m *Manager) paths(v vm.VM) config.VMPaths { return m.d.Paths.VM(string(v.ID)) }

// ref is what a driver needs to find and clean up after a machine.
func (m *Manager) ref(v vm.VM) vmm.Spec {
	p := m.paths(v)
	return vmm.Spec{
		ID:         string(v.ID),
		Dir:        p.Dir,
		APISock:    p.APISock(),
		AgentSock:  p.AgentSock(),
		ConsoleLog: p.ConsoleLog(),
		VMMLog:     p.VMMLog(),
		Metrics:    p.Metrics(),
		VsockCID:   v.VsockCID,
		UID:        v.UID,
	}
}

// vmmSpec is all that a driver needs to launch a machine.
func (m *Manager) vmmSpec(v vm.VM, b *boot) vmm.Spec {
	s := m.ref(v)
	s.Kernel, s.Initrd = b.kernel.VMLinux, m.paths(v).Initrd()
	s.VCPUs, s.MemoryBytes = v.Spec.VCPUs, v.Spec.MemoryBytes
	s.Disks = []vmm.Disk{
		{Serial: rootSerial, Path: b.root.Path, Format: vmm.Format(b.root.Format), Backing: b.root.Backing},
		{Serial: workSerial, Path: m.d.Work.Path(m.workLayer(v)), Format: vmm.Raw},
	}
	if b.kernel.ModulesDisk != "" {
		s.Disks = append(s.Disks, vmm.Disk{Serial: modulesSerial, Path: b.kernel.ModulesDisk, Format: vmm.Raw, ReadOnly: true})
	}
	if b.tap != "" {
		s.NICs = []vmm.NIC{{Tap: b.tap, MAC: b.nic.MAC}}
	}
	s.FreezeTo, s.Idle = b.freezeTo, v.Purpose != vm.ForUser
	if t := b.template; t != nil {
		s.Restore = &vmm.Frozen{RAM: t.RAM(), State: t.State()}
	}
	return s
}

// bundle tells the guest who it is.
func (m *Manager) bundle(v vm.VM, b *boot) (wire.Bundle, error) {
	keys, err := hostKeys(v)
	if err != nil {
		return wire.Bundle{}, err
	}
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return wire.Bundle{}, err
	}
	can := d.Capabilities()
	w := wire.Bundle{
		Hostname:  v.Name,
		MachineID: machineID(v),
		Token:     v.Token,
		Root:      wire.Mount{Serial: rootSerial, FSType: "ext4"},
		Mounts:    []wire.Mount{{Serial: workSerial, Target: "/root", FSType: "ext4", SizeBytes: v.Spec.DiskBytes, Fill: true}},
		Init:      b.ground.image.Init,

		VsockPort:   can.VsockPort,
		EndByReboot: can.EndByReboot,

		AuthorizedKeys: m.d.AuthorizedKeys,
		SSHHostKeys:    keys,
	}
	if b.tap != "" {
		w.NICs, w.Resolvers = []wire.NIC{b.nic}, b.resolvers
	}
	if b.kernel.ModulesDisk != "" {
		w.Mounts = append(w.Mounts, wire.Mount{
			Serial: modulesSerial, Target: "/lib/modules/" + b.kernel.Version, FSType: "ext4", ReadOnly: true,
		})
	}
	if can.NoSerials {
		w.Root.Position = 1
		for i := range w.Mounts { // in the order of vmmSpec's disks
			w.Mounts[i].Position = 2 + i
		}
	}
	if v.Purpose == vm.ForTemplate {
		return ofTemplate(w), nil
	}
	return w, nil
}

// machineID is the same at every boot of a machine. Records of old have none.
func machineID(v vm.VM) string {
	if v.MachineID != "" {
		return v.MachineID
	}
	sum := md5.Sum([]byte("banger machine-id " + string(v.ID) + v.CreatedAt.UTC().String()))
	return hex.EncodeToString(sum[:])
}

// ofTemplate is a bundle without what all machines of the template would share.
func ofTemplate(w wire.Bundle) wire.Bundle {
	w.Template = true
	w.AuthorizedKeys, w.SSHHostKeys = nil, nil
	w.NICs, w.Resolvers, w.Hosts = nil, nil, nil
	return w
}

// rootLayer is the machine's writable root.
func (m *Manager) rootLayer(v vm.VM, g ground) disk.Layer {
	return g.over(disk.Layer{
		ID: string(v.ID), Dir: m.paths(v).Dir, SizeBytes: m.rootBytes(g.image), UID: v.UID,
	})
}

func (m *Manager) workLayer(v vm.VM) disk.Layer {
	return disk.Layer{ID: string(v.ID), Dir: m.paths(v).Dir, SizeBytes: v.Spec.DiskBytes, UID: v.UID}
}

// makeDisks makes what of the machine's disks is not there yet.
func (m *Manager) makeDisks(ctx context.Context, v vm.VM, g ground) error {
	defer trace.Span(ctx, trace.Daemon, "make disks")()
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return err
	}
	if err := ownedDir(m.paths(v).Dir, v.UID); err != nil {
		return err
	}
	if err := d.Layers.Create(ctx, m.rootLayer(v, g)); err != nil {
		return err
	}
	work := m.workLayer(v)
	work.Template = g.template.Work()
	return m.d.Work.Create(ctx, work)
}
