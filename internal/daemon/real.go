package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"banger/internal/cgroup"
	"banger/internal/config"
	"banger/internal/disk/dmsnap"
	"banger/internal/disk/qcow2"
	"banger/internal/disk/workdisk"
	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/guest/boot"
	"banger/internal/guest/transport"
	"banger/internal/handle"
	"banger/internal/image/recipe"
	"banger/internal/kernel/fetch"
	"banger/internal/lifecycle"
	"banger/internal/network/linux"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
)

// Real returns the mechanisms of the real host. What the host lacks is no error
// here: each machine that needs it is refused, with the reason.
func Real(p config.Paths, c config.Config, log *slog.Logger) (Mechanisms, error) {
	agent, err := agentBinary()
	if err != nil {
		return Mechanisms{}, err
	}
	b, err := boot.New(boot.Options{Agent: agent})
	if err != nil {
		return Mechanisms{}, err
	}
	h, err := newHost()
	if err != nil {
		return Mechanisms{}, err
	}
	images, err := recipe.New(p.Images(), recipe.Options{Mirror: c.Mirror})
	if err != nil {
		return Mechanisms{}, err
	}
	kernels, err := fetch.New(p.Kernels(), fetch.Options{Mirror: c.Mirror})
	if err != nil {
		return Mechanisms{}, err
	}
	m := Mechanisms{
		Drivers: drivers(p),
		Finder:  &handle.Finder{},
		Work:    workdisk.New(ext4.MakeEmpty, ext4.Grow),
		Network: linux.New(linux.Options{Tag: p.Tag, Root: p.State, Log: log}),
		Limits:  cgroup.New(cgroup.Options{Tag: p.Tag}),
		Names:   &names{log: log},
		Images:  images,
		Kernels: kernels,
		Boot:    b,
		Dialer:  transport.Dialer{},
		Host:    h,
	}
	return m, chooseDriver(&m, c.Driver)
}

// drivers are those of this build, each with the layers that it takes.
func drivers(p config.Paths) map[string]lifecycle.Driver {
	return map[string]lifecycle.Driver{
		qemu.Name:        {Driver: qemu.New(qemu.Options{}), Layers: qcow2.Layers{}},
		firecracker.Name: {Driver: firecracker.New(firecracker.Options{}), Layers: dmsnap.New(dmsnap.Options{Tag: p.Tag})},
	}
}

// chooseDriver settles which driver a machine gets that names none, and why.
func chooseDriver(m *Mechanisms, want string) error {
	if want != "auto" {
		if _, ok := m.Drivers[want]; !ok {
			return errkind.New(errkind.Usage, "driver = %q: there is no such driver", want)
		}
		m.DefaultDriver, m.DriverReason = want, "the configuration says so"
		return nil
	}
	ctx := context.Background()
	barred := m.Drivers[firecracker.Name].Check(ctx)
	if barred == nil {
		m.DefaultDriver, m.DriverReason = firecracker.Name, "Firecracker with KVM, on device-mapper snapshots"
		return nil
	}
	m.DefaultDriver = qemu.Name
	switch err := m.Drivers[qemu.Name].Check(ctx); {
	case err != nil:
		m.DriverReason = err.Error()
	case m.Drivers[qemu.Name].Capabilities().Accelerated:
		m.DriverReason = "QEMU with KVM: " + barred.Error()
	default:
		m.DriverReason = "QEMU in software: this host has no usable KVM, and guests run many times slower"
	}
	return nil
}

// agentBinary finds the agent, which stands beside the daemon or in the place
// of a package.
func agentBinary() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{filepath.Dir(exe), "/usr/lib/banger"} {
		path := filepath.Join(dir, "banger-agent")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errkind.New(errkind.Host, "banger-agent is not installed: it belongs beside bangerd (%s) or in /usr/lib/banger", filepath.Dir(exe))
}
