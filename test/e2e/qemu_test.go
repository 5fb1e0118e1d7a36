//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"banger/internal/handle"
	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmtest"
)

// The real QEMU keeps what every driver promises.
func TestVMMSuiteQEMU(t *testing.T) {
	current := filepath.Join(cacheDir, "kernels/debian-cloud/current")
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	g := vmmtest.Guest{Kernel: filepath.Join(current, "vmlinux"), Busybox: busybox, UID: 0x6fffff00}
	for _, m := range []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk"} {
		g.Modules = append(g.Modules, filepath.Join(current, "boot", m+".ko"))
	}
	vmmtest.Run(t, func(*testing.T) vmmtest.Harness {
		return vmmtest.Harness{Driver: qemu.New(qemu.Options{}), Finder: &handle.Finder{}, Spec: g.Spec}
	})
}
