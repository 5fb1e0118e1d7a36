package qemu

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/vmm"
)

// firstTapFD is the descriptor of the first tap in QEMU's process: those below
// are its input, output and errors.
const firstTapFD = 3

// openTaps opens the taps of a machine's interfaces, for QEMU to be given. On an
// error none is open.
func openTaps(nics []vmm.NIC) ([]*os.File, error) {
	var taps []*os.File
	for _, n := range nics {
		f, err := openTap(n.Tap)
		if err != nil {
			closeAll(taps)
			return nil, fmt.Errorf("open tap %s: %w", n.Tap, err)
		}
		taps = append(taps, f)
	}
	return taps, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// openTap attaches to a tap that is there (Documentation/networking/tuntap.rst
// of the kernel). It never makes one: a tap made here would be on no bridge.
func openTap(name string) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	if err := linkIsThere(req); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errkind.WithHint(errkind.New(errkind.Host, "open /dev/net/tun: %w", err), "modprobe tun")
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// linkIsThere asks the kernel for a link (netdevice(7)).
func linkIsThere(req *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
}
