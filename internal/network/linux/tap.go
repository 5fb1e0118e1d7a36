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
		return nil // up is the last that makePort makes it
	}
	if err := c.makePort(l, br, mustMAC(p.ID)); err != nil {
		return fmt.Errorf("make tap %s a port of the bridge: %w", name, err)
	}
	return nil
}

// makePort makes a tap the bridge's port and sets it up.
//
// The bridge learns nothing from it, and is told where the machine's address
// is: frames to 01:80:c2:00:00:0e (LLDP) pass no hook of nftables, but would be
// learned from (br_handle_frame in net/bridge/br_input.c). They also go to the
// host as if the tap were no port of the bridge, so it takes part in no ARP.
func (c *conn) makePort(l, br netlink.Link, mac net.HardwareAddr) error {
	if err := withoutIPv6(l.Attrs().Name); err != nil {
		return err
	}
	if err := c.LinkSetARPOff(l); err != nil {
		return fmt.Errorf("switch ARP off: %w", err)
	}
	if err := c.LinkSetMaster(l, br); err != nil {
		return err
	}
	if err := c.LinkSetLearning(l, false); err != nil {
		return fmt.Errorf("switch learning off: %w", err)
	}
	if err := c.LinkSetFlood(l, false); err != nil { // of frames to nobody knows whom
		return fmt.Errorf("switch flooding off: %w", err)
	}
	at := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, HardwareAddr: mac,
		State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, // "static" for bridge(8)
	}
	if err := c.NeighSet(at); err != nil {
		return fmt.Errorf("tell the bridge of %s: %w", mac, err)
	}
	return c.LinkSetUp(l)
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
