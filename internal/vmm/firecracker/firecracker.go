// Package firecracker runs machines with Firecracker: hardware virtualisation
// alone, by a VMM that does little else.
//
// Each machine is one process in a session of its own, as a user of its own,
// under Firecracker's seccomp filters. It serves its API on one Unix socket, by
// which it is told from its neighbours, and the guest's vsock on another.
//
// What a snapshot stores is named relative to the machine's directory, which is
// the process's working directory, so that one snapshot serves many machines:
// disks in it by their names, the vsock socket by way of a link, "run", to the
// directory of sockets.
//
// Firecracker opens its own log and metrics and writes from where they begin, so
// both are emptied at each launch. The log is the VMM's user's, and holds one
// boot; the guest's console is Firecracker's standard output, and is appended.
// While it is connected to, both files are kept small by making holes of what is
// old, which leaves Firecracker's offset right.
//
// The VMM is as little trusted as its guest: what its API answers and what it
// counts is bounded and validated, and who answers must be the machine's
// process.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"banger/internal/errkind"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// Name is the driver's name in commands and records.
const Name = "firecracker"

const (
	// extraMemory: Firecracker itself takes under 3 MB, and its log and disks'
	// page cache what is left, which the kernel takes back as it needs to. Less of
	// that makes disks slow while the guest uses all its memory.
	extraMemory = 128 << 20
	// extraThreads: one serves the API, one the devices; there is room for what
	// another version has.
	extraThreads = 16
)

// Options of a driver; the zero value is right for a user's host.
type Options struct {
	Program string // optional: another Firecracker, a name in PATH or an absolute path
}

// Driver is the [vmm.Driver] for Firecracker. Make it with [New].
type Driver struct {
	program string

	probed vmmproc.Probe[probe]
}

// New returns a driver. It starts nothing, and succeeds where Firecracker or KVM
// is missing: [Driver.Check] tells.
func New(o Options) *Driver {
	d := &Driver{program: o.Program}
	if d.program == "" {
		d.program = Name
	}
	return d
}

// Name returns "firecracker".
func (d *Driver) Name() string { return Name }

// Capabilities tells what Firecracker can do.
func (d *Driver) Capabilities() vmm.Capabilities {
	return vmm.Capabilities{
		Formats:     []vmm.Format{vmm.Raw},
		EndByReboot: true,
		NoSerials:   true,
		VsockPort:   vmm.AgentPort,
		Accelerated: true,
		Freezes:     true,

		ExtraMemory:  extraMemory,
		ExtraThreads: extraThreads,
	}
}

// Check returns nil if Firecracker can run machines here, else an error of kind
// [errkind.Host]. Firecracker is asked once for each version that is installed.
func (d *Driver) Check(ctx context.Context) error {
	if runtime.GOARCH != "amd64" {
		return errkind.New(errkind.Host, "firecracker: banger runs machines on x86-64 hosts only, not on %s", runtime.GOARCH)
	}
	if _, _, err := d.probe(ctx); err != nil {
		return err
	}
	if err := vmmproc.CheckKVM(); err != nil {
		return fmt.Errorf("firecracker runs guests on the processor only: %w", err)
	}
	return checkTun("/dev/net/tun")
}

// checkTun reports a device that Firecracker, which opens it as the machine's
// user, cannot open.
func checkTun(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return errkind.WithHint(errkind.Wrap(errkind.Host, err), "modprobe tun")
	}
	if fi.Mode().Perm()&0o006 != 0o006 {
		err := errkind.New(errkind.Host, "%s is not for everyone: its mode is %#o, and Firecracker runs without privilege", path, fi.Mode().Perm())
		return errkind.WithHint(err, "chmod 666 "+path)
	}
	return nil
}

// Version returns Firecracker's version, such as "1.12.1".
func (d *Driver) Version(ctx context.Context) (string, error) {
	_, p, err := d.probe(ctx)
	return p.version, err
}

// Templates reports whether this Firecracker can restore one snapshot for many
// machines: it must let each have a tap of its own.
func (d *Driver) Templates(ctx context.Context) (bool, error) {
	_, p, err := d.probe(ctx)
	return p.templates, err
}

// Signature tells a machine's Firecracker by its API socket.
func (d *Driver) Signature(s vmm.Spec) vmm.Signature {
	return vmm.Signature{Exe: filepath.Base(d.program), UID: s.UID, Arg: "--api-sock", Next: s.APISock}
}

// CleanUp removes the sockets of a VMM that is gone and the link to them, or
// whatever was planted in their place. It succeeds if there is nothing.
func (d *Driver) CleanUp(_ context.Context, s vmm.Spec) error {
	return remove(s.APISock, s.AgentSock, runLink(s))
}

// remove removes what stands at paths. A VMM that was broken into may have left
// directories there.
func remove(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("remove socket: %w", err))
		}
	}
	return errors.Join(errs...)
}
