package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inet6Conf is where the kernel has its settings of IPv6 for each interface.
const inet6Conf = "/proc/sys/net/ipv6/conf"

// addAddr6 gives an interface one more address. The daemon chose it and made
// sure that it is free: nothing waits for the kernel to ask around, now or for
// any other address of the interface.
func addAddr6(l *link, p netip.Prefix) error {
	if err := os.WriteFile(filepath.Join(inet6Conf, l.name, "accept_dad"), []byte("0"), 0); err != nil {
		return err
	}
	s, err := openInet(unix.AF_INET6)
	if err != nil {
		return err
	}
	defer s.Close()
	r := inet6Request{addr: p.Addr().As16(), bits: uint32(p.Bits()), index: int32(l.index)}
	err = ioctl(s, unix.SIOCSIFADDR, unsafe.Pointer(&r))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// inet6Request is a struct in6_ifreq (linux/ipv6.h).
type inet6Request struct {
	addr  [16]byte
	bits  uint32
	index int32
}

func setGateway6(l *link, gw netip.Addr) error {
	s, err := openInet(unix.AF_INET6)
	if err != nil {
		return err
	}
	defer s.Close()
	return replaceRoute(s,
		unsafe.Pointer(&inet6Route{metric: inet6Metric}),
		unsafe.Pointer(&inet6Route{
			gateway: gw.As16(), metric: inet6Metric,
			flags: unix.RTF_UP | unix.RTF_GATEWAY, index: int32(l.index),
		}))
}

// inet6Route is a struct in6_rtmsg (linux/ipv6_route.h). Without a gateway and
// an interface it stands for all routes to a destination with its metric, when
// it is removed.
type inet6Route struct {
	dst, src, gateway [16]byte
	kind              uint32
	dstBits, srcBits  uint16
	metric            uint32
	_                 uintptr
	flags             uint32
	index             int32
}

// inet6Metric is what the kernel takes if there is none, IP6_RT_PRIO_USER.
const inet6Metric = 1024
