package firecracker

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"banger/internal/errkind"
	"banger/internal/trace"
	"banger/internal/vmm"
)

const (
	maxVCPUs   = 32 // Firecracker's own limit
	maxCmdline = 2047
	minCID     = 3 // those below are the host's (vsock(7))
	maxID      = 64
)

// kernelArgs are the driver's own kernel arguments. Later ones win.
var kernelArgs = []string{
	"console=ttyS0", "quiet", // each line on a serial console costs
	"panic=-1", "reboot=k", // a kernel that panics reboots, at once, and that ends Firecracker
	// There is a keyboard's controller, for rebooting alone: no search for more.
	"i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd",
}

// A plan is what Firecracker is told of a machine before it starts.
type plan struct {
	machine machineConfig
	boot    bootSource
	drives  []drive
	nics    []networkInterface
	vsock   vsockDevice
	metrics string      // empty: none
	restore *vmm.Frozen // what the guest goes on from; nil: it boots
}

// newPlan returns what Firecracker is told of s, or an error if it could not run
// it. It is pure.
func newPlan(s vmm.Spec) (plan, error) {
	cmdline := strings.Join(append(kernelArgs[:len(kernelArgs):len(kernelArgs)], s.Cmdline...), " ")
	switch {
	case s.VCPUs > maxVCPUs:
		return plan{}, errkind.New(errkind.Usage, "%d vCPUs: Firecracker gives a machine at most %d", s.VCPUs, maxVCPUs)
	case len(cmdline) > maxCmdline:
		return plan{}, errkind.New(errkind.Usage, "kernel command line of %d bytes: the kernel takes %d", len(cmdline), maxCmdline)
	case s.VsockCID < minCID:
		return plan{}, fmt.Errorf("vsock address %d: a guest has %d or more", s.VsockCID, minCID)
	}
	p := plan{
		machine: machineConfig{VCPUs: s.VCPUs, MemoryMiB: s.MemoryBytes >> 20},
		boot:    bootSource{Kernel: s.Kernel, Initrd: s.Initrd, Args: cmdline},
		vsock:   vsockDevice{CID: s.VsockCID, Path: filepath.Join(runName, filepath.Base(s.AgentSock))},
		metrics: s.Metrics,
		restore: s.Restore,
	}
	for i, d := range s.Disks {
		if d.Format != vmm.Raw {
			return plan{}, fmt.Errorf("disk %s: Firecracker has no disks of format %s", d.Serial, d.Format)
		}
		p.drives = append(p.drives, drive{ID: driveID(i), Path: relative(s.Dir, d.Path), ReadOnly: d.ReadOnly, Cache: cacheOf(d)})
	}
	for i, n := range s.NICs {
		p.nics = append(p.nics, networkInterface{ID: nicID(i), Tap: n.Tap, MAC: n.MAC})
	}
	return p, nil
}

// Names of devices in the API.
func driveID(i int) string { return fmt.Sprintf("disk%d", i) }
func nicID(i int) string   { return fmt.Sprintf("net%d", i) }

func cacheOf(d vmm.Disk) cacheType {
	if d.ReadOnly {
		return cacheUnsafe // there is nothing to flush
	}
	return cacheWriteback
}

// runName is the link in a machine's directory to that of its sockets.
const runName = "run"

func runLink(s vmm.Spec) string { return filepath.Join(s.Dir, runName) }

// relative returns path as seen from dir if it is below it, else as it is.
func relative(dir, path string) string {
	if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/"); ok {
		return rest
	}
	return path
}

// instanceID makes a name that Firecracker takes: letters, digits and hyphens.
func instanceID(id string) string {
	id = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, id)
	return id[:min(len(id), maxID)]
}

// tell tells Firecracker p, and starts the guest or lets it go on.
func (p plan) tell(ctx context.Context, c *client) error {
	if p.restore != nil {
		return p.goOn(ctx, c)
	}
	defer trace.Span(ctx, trace.VMM, "configure and boot")()
	steps := []func() error{
		func() error { return c.setMachine(ctx, p.machine) },
		func() error { return c.setBootSource(ctx, p.boot) },
		func() error { return c.setVsock(ctx, p.vsock) },
		func() error { return c.setEntropy(ctx, entropyDevice{}) },
	}
	for _, d := range p.drives {
		steps = append(steps, func() error { return c.setDrive(ctx, d) })
	}
	for _, n := range p.nics {
		steps = append(steps, func() error { return c.setNIC(ctx, n) })
	}
	if p.metrics != "" {
		steps = append(steps, func() error { return c.setMetrics(ctx, metricsConfig{p.metrics}) })
	}
	for _, step := range append(steps, func() error { return c.start(ctx) }) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
