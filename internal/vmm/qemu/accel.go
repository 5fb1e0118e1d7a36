package qemu

import "banger/internal/vmm/vmmproc"

// bestAccel returns KVM where it is real.
func bestAccel() Accel {
	if vmmproc.CheckKVM() == nil {
		return KVM
	}
	return TCG
}

// groups returns the supplementary groups that the VMM needs.
func (a Accel) groups() []uint32 {
	if a != KVM {
		return nil
	}
	return vmmproc.KVMGroups()
}
