package linux

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

const tunDevice = "/dev/net/tun"

// fits reports whether a tap is one that a VMM of a user can use. Flags that
// the VMM sets for itself when it opens the tap do not count.
func fits(l netlink.Link, uid uint32) bool {
	t, ok := l.(*netlink.Tuntap)
	return ok && t.Owner == uid && t.Flags&netlink.TUNTAP_MULTI_QUEUE == 0
}

// makeTap makes a machine's tap, or what is missing of l, which may be nil, and
// has Watch look after it. A tap is up only when it is the bridge's port: as a
// link by itself, it would be the guest's way into the host.
func (n *Network) makeTap(c *conn, l, br netlink.Link, name string, p network.Port) error {
	found := l != nil
	if !found {
		if err := createTap(name, p.UID); err != nil {
			return fmt.Errorf("create tap %s: %w", name, err)
		}
		var err error
		if l, err = c.LinkByName(name); err != nil {
			return fmt.Errorf("find tap %s: %w", name, err)
		}
		n.log.Debug("tap made", "vm", p.ID, "tap", name)
	}
	a := l.Attrs()
	n.want(a.Index, p.ID, found)
	if a.MasterIndex == br.Attrs().Index && a.Flags&net.FlagUp != 0 {
		return nil
	}
	if err := withoutIPv6(name); err != nil {
		return fmt.Errorf("set up tap %s: %w", name, err)
	}
	if err := c.LinkSetMaster(l, br); err != nil {
		return fmt.Errorf("make tap %s a port of the bridge: %w", name, err)
	}
	if err := c.LinkSetUp(l); err != nil {
		return fmt.Errorf("set tap %s up: %w", name, err)
	}
	return nil
}

// createTap makes a persistent tap that a user may open. It fails if the name
// is taken.
//
// The netlink library's way to make one gives it a group too, and whoever opens
// a tap must be of both.
func createTap(name string, uid uint32) error {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", tunDevice, hostLacks(err, "tun"))
	}
	defer unix.Close(fd) // a tap that is not yet persistent goes with it
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, int(uid)); err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}
