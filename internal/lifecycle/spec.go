package lifecycle

import (
	"context"
	"crypto/md5"
	"encoding/hex"

	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/guest/wire"
	"banger/internal/image"
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
	// The same at every boot of the machine, and tells nothing of its token.
	sum := md5.Sum([]byte("banger machine-id " + string(v.ID) + v.CreatedAt.UTC().String()))
	w := wire.Bundle{
		Hostname:  v.Name,
		MachineID: hex.EncodeToString(sum[:]),
		Token:     v.Token,
		Root:      wire.Mount{Serial: rootSerial, FSType: "ext4"},
		Mounts:    []wire.Mount{{Serial: workSerial, Target: "/root", FSType: "ext4", Fill: true}},
		Init:      b.image.Init,

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
	return w, nil
}

// rootLayer is the machine's writable root; with the zero image it is enough
// to detach and delete.
func (m *Manager) rootLayer(v vm.VM, i image.Image) disk.Layer {
	return disk.Layer{
		ID: string(v.ID), Dir: m.paths(v).Dir, Base: i.Root, BaseID: i.ID,
		SizeBytes: max(int64(m.d.Config.RootFS), i.SizeBytes), UID: v.UID,
	}
}

func (m *Manager) workLayer(v vm.VM) disk.Layer {
	return disk.Layer{ID: string(v.ID), Dir: m.paths(v).Dir, SizeBytes: v.Spec.DiskBytes, UID: v.UID}
}

// makeDisks makes what of the machine's disks is not there yet.
func (m *Manager) makeDisks(ctx context.Context, v vm.VM, i image.Image) error {
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return err
	}
	if err := ownedDir(m.paths(v).Dir, v.UID); err != nil {
		return err
	}
	if err := d.Layers.Create(ctx, m.rootLayer(v, i)); err != nil {
		return err
	}
	return m.d.Work.Create(ctx, m.workLayer(v))
}
