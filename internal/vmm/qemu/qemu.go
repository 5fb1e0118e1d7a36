// Package qemu runs machines with QEMU's microvm machine type: hardware
// virtualisation where the host has it, software emulation (TCG) elsewhere.
//
// Each machine is one process in a session of its own, as a user of its own,
// under QEMU's seccomp sandbox. It listens on a Unix socket for QMP, by which the
// driver talks to it and by which it is told from its neighbours. QMP serves one
// client at a time; that of a daemon that died is dropped by the kernel, so the
// next may attach.
//
// The agent is reached over AF_VSOCK where the host has vhost-vsock. Elsewhere
// there is a virtio-serial port for it, whose other end is a second Unix socket.
// Which of the two a machine has, its QEMU tells.
//
// The VMM is as little trusted as its guest: what comes over QMP is bounded
// and validated, and the peer must run as the machine's user.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// Name is the driver's name in commands and records.
const Name = "qemu"

const (
	program     = "qemu-system-x86_64"
	installHint = "apt-get install -y qemu-system-x86"
)

const (
	// extraMemory: QEMU itself takes some 40 MB, and its disks' page cache what is
	// left, which the kernel takes back as it needs to. Less of that makes disks
	// slow while the guest uses all its memory.
	extraMemory = 256 << 20
	// tcgMemory is for translated code, and as much again for what QEMU remembers
	// of it.
	tcgMemory = 2 * tcgBuffer
	// extraThreads: QEMU's block layer has up to 64 (THREAD_POOL_MAX_THREADS_DEFAULT)
	// and QEMU, which aborts where it can have no thread, a few more.
	extraThreads = 128
)

// Accel is what runs the guest's code.
type Accel string

const (
	Auto Accel = ""    // KVM where it is real, else TCG
	KVM  Accel = "kvm" // the processor
	TCG  Accel = "tcg" // QEMU itself, in software
)

// Options of a driver; the zero value is right for a user's host.
type Options struct {
	Program string // optional: another QEMU, a name in PATH or an absolute path
	Accel   Accel  // optional
}

// Driver is the [vmm.Driver] for QEMU. Make it with [New].
type Driver struct {
	program string
	accel   Accel
	vsock   bool // the host has vhost-vsock
	tsc     *tscClock

	probed   vmmproc.Probe[probe]
	memories memories
}

// New returns a driver. It starts nothing, and succeeds where QEMU is missing:
// [Driver.Check] tells.
func New(o Options) *Driver {
	d := &Driver{program: o.Program, accel: o.Accel, vsock: hasVsock(), tsc: newTSCClock()}
	if d.program == "" {
		d.program = program
	}
	if d.accel == Auto {
		d.accel = bestAccel()
	}
	return d
}

// Name returns "qemu".
func (d *Driver) Name() string { return Name }

// Capabilities tells what QEMU can do. What concerns the host was looked up
// once, by [New].
func (d *Driver) Capabilities() vmm.Capabilities {
	c := vmm.Capabilities{
		Formats:     []vmm.Format{vmm.QCOW2, vmm.Raw},
		Accelerated: d.accel == KVM,
		// Tried with KVM, in the lab alone, boots with memory in a file hung.
		Freezes: d.accel == TCG,

		ExtraMemory:  extraMemory,
		ExtraThreads: extraThreads,
	}
	if d.accel == TCG {
		c.ExtraMemory += tcgMemory
	}
	if d.vsock {
		c.VsockPort = vmm.AgentPort
	}
	return c
}

// Check returns nil if QEMU can run machines here, else an error of kind
// [errkind.Host]. QEMU is asked once for each version that is installed.
func (d *Driver) Check(ctx context.Context) error {
	if runtime.GOARCH != "amd64" {
		return errkind.New(errkind.Host, "qemu: banger runs machines on x86-64 hosts only, not on %s", runtime.GOARCH)
	}
	_, err := d.probe(ctx)
	return err
}

// Version returns QEMU's version, such as "7.2.22".
func (d *Driver) Version(ctx context.Context) (string, error) {
	p, err := d.probe(ctx)
	return p.version, err
}

// Signature tells a machine's QEMU by its QMP socket.
func (d *Driver) Signature(s vmm.Spec) vmm.Signature {
	return vmm.Signature{Exe: filepath.Base(d.program), UID: s.UID, Arg: "-qmp", Next: qmpOption(s)}
}

// CleanUp removes the sockets of a VMM that is gone, or whatever was planted in
// their place. It succeeds if there is nothing.
func (d *Driver) CleanUp(_ context.Context, s vmm.Spec) error {
	var errs []error
	for _, path := range []string{s.APISock, s.AgentSock} {
		// A VMM that was broken into may have left a directory there.
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("remove socket: %w", err))
		}
	}
	return errors.Join(errs...)
}

// binary returns QEMU's path as it is executed: links are not resolved, for where
// they lead changes with an upgrade.
func (d *Driver) binary() (string, error) {
	path, err := hostcmd.Look(d.program)
	if err != nil {
		return "", errkind.WithHint(err, installHint)
	}
	return path, nil
}
