//go:build e2e

package e2e

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Somebody on the host has a machine's vsock address: where that matters, which
// is for QEMU with vhost-vsock, the machine gets another. There, and wherever
// else its agent is, the next daemon reaches it, also while it cannot read what
// the last one wrote.
func TestVsockAddressTaken(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	asked, _ := b.show("web")["vsock_cid"].(float64)
	taken := takeVsockAddress(t, uint32(asked)) && b.show("web")["driver"] == "qemu"
	b.must("vm", "start", "web")
	got, _ := b.show("web")["vsock_cid"].(float64)
	if (got != asked) != taken {
		t.Errorf("its address is %v, it asked for %v, which was taken: %t", got, asked, taken)
	}
	b.killDaemon()
	must(t, os.Remove(b.paths.VM(b.show("web")["id"].(string)).Handles()))
	b.wants(0, "hi\n", "", "vm", "exec", "web", "--", "echo", "hi")
	if again, _ := b.show("web")["vsock_cid"].(float64); again != got {
		t.Errorf("its address is %v, was %v", again, got)
	}
}

// takeVsockAddress takes an address until the test ends. It reports whether the
// host has such.
func takeVsockAddress(t *testing.T, cid uint32) bool {
	f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return false
	}
	must(t, err)
	t.Cleanup(func() { f.Close() })
	arg := uint64(cid)
	const setGuestCID = 0x4008af60 // VHOST_VSOCK_SET_GUEST_CID
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), setGuestCID, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatal(errno)
	}
	return true
}
