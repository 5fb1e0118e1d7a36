package vmmproc

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"banger/internal/errkind"
)

const (
	kvmDevice  = "/dev/kvm"
	sysModules = "/sys/module"
	kvmHint    = "modprobe kvm_intel || modprobe kvm_amd"
)

// CheckKVM returns nil if guests can run on this host's processor, else an
// error of kind [errkind.Host]. A /dev/kvm that opens proves nothing: a
// paravirtual KVM (kvm_pvm) opens, and hangs every kernel that was not made for
// it. The modules for the processor's own virtualisation tell.
func CheckKVM() error { return checkKVM(sysModules, kvmDevice) }

func checkKVM(modules, device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errkind.WithHint(errkind.New(errkind.Host, "there is no %s", device), kvmHint)
	}
	if err != nil {
		return errkind.Wrap(errkind.Host, err)
	}
	f.Close()
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat(modules + "/" + m); err == nil {
			return nil
		}
	}
	err = errkind.New(errkind.Host, "%s is there, but is not the processor's virtualisation: neither kvm_intel nor kvm_amd is loaded", device)
	return errkind.WithHint(err, kvmHint)
}

// KVMGroups returns the supplementary groups that a VMM needs to open the KVM
// device.
func KVMGroups() []uint32 {
	fi, err := os.Stat(kvmDevice)
	if err != nil {
		return nil // the VMM will say so
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return nil // the group of root gives more than this device
	}
	return []uint32{st.Gid}
}
