package agent

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An ifSocket is a socket of IPv4, by which the kernel is asked for what
// netdevice(7) tells of. These old requests take a fraction of the time of a
// first exchange over netlink, which counts in software emulation, where code
// that runs for the first time is dear.
type ifSocket struct{ *os.File }

func openIfSocket() (ifSocket, error) {
	f, err := openInet(unix.AF_INET)
	return ifSocket{f}, err
}

func openInet(family int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// setUp brings an interface up or down. It succeeds if it is so.
func (s ifSocket) setUp(name string, up bool) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := s.request(unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	flags := r.Uint16() &^ unix.IFF_UP
	if up {
		flags |= unix.IFF_UP
	}
	if flags == r.Uint16() {
		return nil
	}
	r.SetUint16(flags)
	return s.request(unix.SIOCSIFFLAGS, r)
}

func (s ifSocket) request(request uint, r *unix.Ifreq) error {
	return unix.IoctlIfreq(int(s.Fd()), request, r)
}

// hardwareRequest is a struct ifreq (linux/if.h) with a struct sockaddr in its
// union, whose family is the kind of the interface; the union has 24 bytes.
type hardwareRequest struct {
	name [unix.IFNAMSIZ]byte
	kind uint16
	addr mac
	_    [16]byte
}

func (s ifSocket) hardware(request uintptr, name string, r *hardwareRequest) error {
	copy(r.name[:len(r.name)-1], name)
	return ioctl(s.File, request, unsafe.Pointer(r))
}

// link returns the interface of a name, nil if that is none of Ethernet.
func (s ifSocket) link(name string) (*link, error) {
	var hw hardwareRequest
	err := s.hardware(unix.SIOCGIFHWADDR, name, &hw)
	if errors.Is(err, unix.ENODEV) || err == nil && hw.kind != unix.ARPHRD_ETHER {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	if err := s.request(unix.SIOCGIFINDEX, r); err != nil {
		return nil, err
	}
	return &link{name: name, index: int(r.Uint32()), mac: hw.addr}, nil
}

// setHardware changes the hardware address of an interface of Ethernet.
func (s ifSocket) setHardware(name string, addr mac) error {
	return s.hardware(unix.SIOCSIFHWADDR, name, &hardwareRequest{kind: unix.ARPHRD_ETHER, addr: addr})
}

// setAddr4 gives the label of an interface its address, in the place of the one
// that it has.
func (s ifSocket) setAddr4(label string, p netip.Prefix) error {
	for _, set := range []struct {
		request uint
		value   []byte
	}{
		{unix.SIOCSIFADDR, p.Addr().AsSlice()},
		{unix.SIOCSIFNETMASK, net.CIDRMask(p.Bits(), 32)},
	} {
		r, err := unix.NewIfreq(label)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(set.value); err != nil {
			return err
		}
		if err := s.request(set.request, r); err != nil {
			return err
		}
	}
	return nil
}

// setGateway makes a gateway the way to everywhere, in the place of others of its
// family (of IPv6, those of the same metric). If there were any there is none in
// between.
func (s ifSocket) setGateway(l *link, gw netip.Addr) error {
	if !gw.Is4() {
		return setGateway6(l, gw)
	}
	name := append([]byte(l.name), 0)
	return replaceRoute(s.File,
		unsafe.Pointer(&routeEntry{dst: anywhere, mask: anywhere}),
		unsafe.Pointer(&routeEntry{
			dst: anywhere, mask: anywhere, gateway: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gw.As4()},
			flags: unix.RTF_UP | unix.RTF_GATEWAY, dev: &name[0],
		}))
}

// routeEntry is a struct rtentry (linux/route.h). Without a gateway and a
// device it stands for all routes to a destination, when it is removed.
type routeEntry struct {
	_                  uintptr
	dst, gateway, mask unix.RawSockaddrInet4
	flags              uint16
	_                  int16
	_                  uintptr
	_                  uintptr
	metric             int16
	dev                *byte
	mtu, window        uintptr
	irtt               uint16
}

var anywhere = unix.RawSockaddrInet4{Family: unix.AF_INET}

// replaceRoute removes all routes like old and adds one.
func replaceRoute(socket *os.File, old, add unsafe.Pointer) error {
	var err error
	for err == nil {
		err = ioctl(socket, unix.SIOCDELRT, old)
	}
	if !errors.Is(err, unix.ESRCH) {
		return err
	}
	return ioctl(socket, unix.SIOCADDRT, add)
}
