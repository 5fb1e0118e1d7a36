package doctor

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"time"

	"banger/internal/errkind"
)

// node makes the device that makes taps (kernel, networking/tuntap.rst).
const node = "mkdir -p /dev/net && rm -f /dev/net/tun && mknod -m 666 /dev/net/tun c 10 200"

// networkTime is how long the kernel, or a daemon that is at work on its own
// network, may keep us waiting.
const networkTime = 10 * time.Second

func (e *examination) networks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, networkTime)
	defer cancel()
	tun := e.tun()
	if e.Network == nil {
		return
	}
	switch {
	case !tun:
		e.warn("nftables", nil, "not looked at: without tun there is no network")
		return
	case !e.Host.Root:
		e.unseen("nftables", "what rules the kernel takes")
		return
	}
	if err := e.Network.Check(ctx); err != nil {
		e.failed("nftables", err)
		return
	}
	e.ok("nftables", "the kernel takes our rules")
	e.firewall(ctx)
}

// tun reports whether taps can be made.
func (e *examination) tun() bool {
	switch t := e.Host.Tun; {
	case t.Err == nil && !t.Other:
		e.ok("tun", "/dev/net/tun opens")
		return true
	case t.Mounted:
		e.fail("tun", []string{"umount /dev/net/tun"}, "something else is mounted over /dev/net/tun")
	case errors.Is(t.Err, fs.ErrNotExist):
		// Where modules cannot be loaded, as in a container, the driver may
		// be there and only its node missing.
		e.fail("tun", []string{"modprobe tun", node}, "there is no /dev/net/tun")
	case errors.Is(t.Err, syscall.ENODEV) || errors.Is(t.Err, syscall.ENXIO):
		e.fail("tun", []string{"modprobe tun"}, "the kernel's driver tun is not loaded")
	case t.Other:
		e.fail("tun", []string{node}, "/dev/net/tun is another device")
	case errors.Is(t.Err, fs.ErrPermission) && !e.Host.Root:
		e.ok("tun", "/dev/net/tun is there (the daemon may use it, you may not)")
		return true
	default:
		e.failed("tun", t.Err)
	}
	return false
}

// firewall tells of those of somebody else's. Machines run behind them, but do
// not reach what they should.
func (e *examination) firewall(ctx context.Context) {
	obstacles, err := e.Network.Obstacles(ctx)
	if err != nil {
		e.warn("firewall", errkind.Hints(err), "cannot tell: %v", err)
		return
	}
	for _, o := range obstacles {
		e.warn("firewall", []string{o.Hint}, "%s", o)
	}
	if len(obstacles) == 0 {
		e.ok("firewall", "none is in the way")
	}
}
