package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

const (
	// vhostVsock is the device by which the host's kernel serves a guest's
	// vsock. Each time that it is opened is one guest.
	vhostVsock = "/dev/vhost-vsock"
	vsockHint  = "modprobe vhost_vsock"

	// setGuestCID is VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h.
	setGuestCID = 0x4008af60

	// Addresses for a machine whose own is taken: above those that are
	// computed from daemons' roots (config.Paths.UIDBase).
	firstSpareCID = 1 << 31
	lastSpareCID  = 1<<32 - 2 // the one above means any address
	spareTries    = 8
)

// hasVsock reports whether guests can be given a vsock here and be dialled.
func hasVsock() bool {
	f, _, err := openVsock(lastSpareCID)
	if err != nil {
		return false
	}
	f.Close()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// openVsock opens the device for a guest that is to have address want, and
// returns the address that it got: another, if somebody on the host has that
// one. It is the guest's for as long as the device is open, in QEMU too.
func openVsock(want uint32) (*os.File, uint32, error) {
	f, err := os.OpenFile(vhostVsock, os.O_RDWR, 0)
	if err != nil {
		err = errkind.Wrap(errkind.Host, err)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			err = errkind.WithHint(err, vsockHint)
		}
		return nil, 0, err
	}
	cid, err := claimCID(want, func(cid uint32) error { return setCID(f, cid) })
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, cid, nil
}

// claimCID sets the address want, or one of the spare ones if that is taken,
// and returns which.
func claimCID(want uint32, set func(uint32) error) (uint32, error) {
	cid := want
	for try := 0; ; try++ {
		err := set(cid)
		if err == nil {
			return cid, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || try == spareTries {
			return 0, fmt.Errorf("set vsock address %d: %w", cid, err)
		}
		cid = firstSpareCID + rand.Uint32N(lastSpareCID-firstSpareCID+1)
	}
}

func setCID(f *os.File, cid uint32) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	arg := uint64(cid)
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, setGuestCID, uintptr(unsafe.Pointer(&arg)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// vsockPath is the device in QEMU's tree of objects.
const vsockPath = "/machine/peripheral/vsock"

// askCID asks QEMU for its guest's vsock address, 0 if that has no vsock.
func (c *qmpClient) askCID(ctx context.Context) (cid uint32, err error) {
	err = c.callWith(ctx, "qom-get", qomGet{vsockPath, "guest-cid"}, &cid)
	var refused *qmpError
	if errors.As(err, &refused) && refused.Class == "DeviceNotFound" {
		return 0, nil
	}
	return cid, err
}

// qomGet are the arguments of the command (qapi/qom.json).
type qomGet struct {
	Path     string `json:"path"`
	Property string `json:"property"`
}
