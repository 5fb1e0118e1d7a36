package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"banger/internal/errkind"
)

// programs are those without which no machine runs, with Debian's packages.
// The Makefile's RUN_NEEDS installs them.
var programs = []struct{ name, pkg string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"mmdebstrap", "mmdebstrap"},
	{"apt-get", "apt"},
	{"dpkg-deb", "dpkg"},
	{"mkfs.ext4", "e2fsprogs"},
	{"debugfs", "e2fsprogs"},
	{"e2fsck", "e2fsprogs"},
	{"depmod", "kmod"},
}

// slower is what emulation in software costs.
const slower = "10 to 20 times slower"

func (e *examination) software(ctx context.Context) {
	e.packages()
	if e.AgentErr != nil {
		e.failed("agent", e.AgentErr)
	} else {
		e.ok("agent", "banger-agent is installed")
	}
	e.driver(ctx)
	e.kvm()
	e.better(ctx)
	e.limits()
}

func (e *examination) packages() {
	var missing, packages []string
	apt := true
	for _, p := range programs {
		if _, err := e.Look(p.name); err == nil {
			continue
		}
		missing = append(missing, p.name)
		if !slices.Contains(packages, p.pkg) {
			packages = append(packages, p.pkg)
		}
		apt = apt && p.name != "apt-get"
	}
	switch install := "apt-get install -y " + strings.Join(packages, " "); {
	case len(missing) == 0:
		e.ok("packages", "all programs are installed")
	case apt:
		e.fail("packages", []string{install}, "not installed: %s", strings.Join(missing, ", "))
	default:
		// What is to be typed here is not known, and without Debian's tools
		// neither images nor kernels can be built.
		e.fail("packages", nil, "not installed: %s (on Debian: %s)", strings.Join(missing, ", "), install)
	}
}

func (e *examination) driver(ctx context.Context) {
	if e.Driver == nil {
		e.failed("driver", e.DriverErr)
		return
	}
	if err := e.Driver.Check(ctx); err != nil {
		e.failed("driver", err)
		return
	}
	version, err := e.Driver.Version(ctx)
	if err != nil {
		e.failed("driver", err)
		return
	}
	title := map[string]string{"qemu": "QEMU", "firecracker": "Firecracker"}[e.Driver.Name()]
	e.ok("driver", "%s %s", cmp.Or(title, e.Driver.Name()), version)
}

// better tells why machines do not run with the driver that suits real KVM
// best.
func (e *examination) better(ctx context.Context) {
	if e.Better == nil || e.inSoftware {
		return
	}
	if err := e.Better.Check(ctx); err != nil {
		e.warn(e.Better.Name(), errkind.Hints(err), "machines run without it, and start slower: %v", err)
	}
}

// limits tells whether a VMM that takes too much hurts itself alone.
func (e *examination) limits() {
	if e.LimitsErr != nil {
		e.warn("limits", errkind.Hints(e.LimitsErr), "machines run without limits on memory and processes: %v", e.LimitsErr)
		return
	}
	e.ok("limits", "each machine's memory and processes are bounded by a cgroup")
}

// kvm tells what runs guests' code. It goes by the device and the modules, as
// the driver does: a device that opens proves nothing, see the driver.
func (e *examination) kvm() {
	k := e.Host.KVM
	barred := errors.Is(k.Err, fs.ErrPermission) && !e.Host.Root // the daemon is not
	there := k.Err == nil || barred
	if there && k.Module != "" {
		e.how = "with KVM"
		e.ok("kvm", "%s: guests run on the processor", k.Module)
		return
	}
	e.inSoftware, e.how = true, "in software, "+slower+" than with KVM"
	const costs = "guests run in software, " + slower
	switch {
	case there:
		e.warn("kvm", k.load(), "/dev/kvm is there, but is not the processor's virtualisation (neither kvm_intel nor kvm_amd is loaded): %s", costs)
	case !errors.Is(k.Err, fs.ErrNotExist):
		e.warn("kvm", nil, "%v: %s", k.Err, costs)
	case k.CPU != "":
		e.warn("kvm", k.load(), "there is no /dev/kvm, but the processor could: %s", costs)
	default:
		e.warn("kvm", nil, "there is no /dev/kvm, and the processor shows no virtualisation (it may be off in the firmware, or on the host above): %s", costs)
	}
}

// load is the command that loads the module of this processor.
func (k KVM) load() []string {
	if k.CPU == "" {
		return nil
	}
	return []string{"modprobe " + k.CPU}
}

func (e *examination) ssh() {
	if _, err := e.Look("ssh"); err != nil {
		e.warn("ssh", []string{"apt-get install -y openssh-client"}, "ssh is not installed: everything works but vm ssh and ssh-config")
		return
	}
	e.ok("ssh", "the client is installed")
}
