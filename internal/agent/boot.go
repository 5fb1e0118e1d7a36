package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// Places in the initramfs while the guest's root is not yet the root.
const (
	bundleFile = "/" + wire.BundlePath
	newRoot    = "/newroot"
)

// boot is the first process of the initramfs. It makes the guest's root file
// system ready, becomes part of it, and hands over to the image's init, or is
// the guest's PID 1 itself where the image has none. It returns only an error;
// no program of the image has run then.
func boot() error {
	if err := mountKernelFS(); err != nil {
		return err
	}
	events, err := listenUevents()
	if err != nil {
		return err
	}
	defer events.Close()
	moduleErr := loadModules(moduleDir)
	b, err := readBundle(bundleFile)
	if err != nil {
		return errors.Join(err, moduleErr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), diskWait)
	defer cancel()
	d := disks{sys: "/sys/block", changed: deviceEvents{events}.wait}
	t, err := prepareRoot(ctx, d, b)
	if err != nil {
		return errors.Join(err, moduleErr)
	}
	if moduleErr != nil {
		say("warning: " + oneLine(moduleErr)) // the disks came up without it
	}
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := setIdentity(t, b); err != nil {
		return err
	}
	nics := b.NICs
	if b.Template {
		nics = nil // each machine brings up its own
	}
	if err := setNetwork(nics); err != nil {
		return err
	}
	return handOver(t, b)
}

// handOver makes the tree the root and runs the image's init, or is PID 1.
func handOver(t *tree, b wire.Bundle) (err error) {
	systemd := false
	if b.Init != "" {
		if systemd, err = t.isSystemd(b.Init); err != nil {
			return err
		}
	}
	if err := install(t, b, systemd); err != nil {
		return err
	}
	if err := switchRoot(t); err != nil {
		return err
	}
	if b.Init == "" {
		return runInit(b.EndByReboot)
	}
	return execInit(b.Init, systemd)
}

// mountKernelFS mounts what tells of the kernel and its devices.
func mountKernelFS() error {
	for _, m := range []struct {
		fs, dir string
		flags   uintptr
		data    string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=755"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// readBundle reads the boot bundle, of which no more is read than may be.
func readBundle(name string) (wire.Bundle, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return wire.Bundle{}, fmt.Errorf("read boot bundle: %w", err)
	}
	if fi.Size() > wire.MaxBundle {
		return wire.Bundle{}, fmt.Errorf("boot bundle of %d bytes is over %d", fi.Size(), wire.MaxBundle)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return wire.Bundle{}, fmt.Errorf("read boot bundle: %w", err)
	}
	return wire.DecodeBundle(data)
}

// prepareRoot mounts the machine's file systems, the root first, and returns
// the tree that they make.
func prepareRoot(ctx context.Context, d disks, b wire.Bundle) (*tree, error) {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return nil, err
	}
	device, err := d.find(ctx, b.Root)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(device, newRoot, b.Root.FSType, 0, writableOptions(b.Root.FSType)); err != nil {
		return nil, fmt.Errorf("mount %s disk %s (%s): %w", b.Root.FSType, b.Root.Serial, device, err)
	}
	t, err := openTree(newRoot)
	if err != nil {
		return nil, err
	}
	growOrSay(device, b.Root.FSType, newRoot)
	// As systemd would mount it; it keeps a /run that is there.
	err = t.mountOn("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755", 0o755)
	if err != nil {
		return nil, err
	}
	for _, m := range b.Mounts {
		if err := mountDisk(ctx, d, t, m); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// writableOptions are the mount options for a disk of the machine's own. The
// kernel would write zeroes over inode tables that were left for later when the
// file system was made, in the background of every machine's first minutes: on
// the host that fills a sparse file, for nothing.
func writableOptions(fsType string) string {
	if fsType == "ext4" {
		return "noinit_itable"
	}
	return ""
}

// growOrSay grows a file system to its disk. One that cannot grow is no
// reason not to boot: what is in it is all there.
func growOrSay(device, fsType, dir string) {
	if fsType != "ext4" {
		return
	}
	f, err := os.Open(dir)
	if err == nil {
		err = grow(device, f)
		f.Close()
	}
	if err != nil {
		say("warning: " + oneLine(err))
	}
}
