package qemu

import (
	"os"
	"syscall"
)

// bestAccel returns KVM where it is real. A /dev/kvm that opens proves nothing:
// a paravirtual KVM (kvm_pvm) opens, and hangs every kernel that was not made
// for it. The modules for the processor's own virtualisation tell.
func bestAccel() Accel {
	return chooseAccel("/sys/module", "/dev/kvm")
}

func chooseAccel(modules, device string) Accel {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return TCG
	}
	f.Close()
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat(modules + "/" + m); err == nil {
			return KVM
		}
	}
	return TCG
}

// groups returns the supplementary groups that the VMM needs: that of the KVM
// device.
func (a Accel) groups() []uint32 {
	if a != KVM {
		return nil
	}
	fi, err := os.Stat("/dev/kvm")
	if err != nil {
		return nil // QEMU will say so
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return nil // the group of root gives more than this device
	}
	return []uint32{st.Gid}
}
