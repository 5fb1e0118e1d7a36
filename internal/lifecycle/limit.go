package lifecycle

import (
	"context"

	"banger/internal/config"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Limits bounds what VMMs take of their host. It is never an obstacle: where the
// host does not let it, machines run without. Its methods may be called
// concurrently, for one machine one after the other.
type Limits interface {
	// Make prepares the limits of a machine's VMM, in bytes and threads, and
	// returns the cgroup in which it is to start; "" where there are none. On an
	// error nothing is left.
	Make(id string, memory int64, threads int) (dir string, err error)
	// Path is where the machine's cgroup is while it runs; "" where there are
	// none.
	Path(id string) string
	// OutOfMemory tells whether the machine's VMM was killed for want of memory,
	// and the limit that it had met; 0: none, the host had no more. It can be
	// told until Remove.
	OutOfMemory(id string) (limit int64, killed bool)
	// Remove removes what Make made, and kills what is left in it. It succeeds if
	// there is nothing.
	Remove(ctx context.Context, id string) error
	// Prune removes what is left of machines that keep does not name. What it
	// could not remove, or something runs in, is in the error.
	Prune(keep map[string]bool) error
}

// kernelShare: for a guest's memory the kernel keeps tables, of the process and of
// the guest, and charges them to the VMM. They take about one part in 512 each.
const kernelShare = 64

// bound prepares the limits of a machine's VMM and returns the cgroup in which it
// is to start, "" if it is to run without.
func (m *Manager) bound(v vm.VM, can vmm.Capabilities) string {
	const whole = 1 << 20
	memory := v.Spec.MemoryBytes + v.Spec.MemoryBytes/kernelShare + can.ExtraMemory
	dir, err := m.d.Limits.Make(string(v.ID), (memory+whole-1)/whole*whole, v.Spec.VCPUs+can.ExtraThreads)
	if err != nil {
		m.log.Warn("the machine runs without limits", "vm", v.ID, "err", err)
	}
	return dir
}

// outOfMemory is why a machine's VMM was killed, "" if that was not for want of
// memory. It is to be asked before the machine is taken down.
func (m *Manager) outOfMemory(id vm.ID) string {
	switch limit, killed := m.d.Limits.OutOfMemory(string(id)); {
	case !killed:
		return ""
	case limit == 0:
		return "the host ran out of memory, and its kernel killed the VMM"
	default:
		return "the VMM used more memory than its limit of " + config.Size(limit).String()
	}
}

// whyEnded is why a machine's VMM ended by itself, as far as it said, or the
// kernel. It is to be asked before the machine is taken down.
func (m *Manager) whyEnded(l *live) string {
	exit := l.exit()
	if exit == vmm.ExitUnknown {
		if why := m.outOfMemory(l.vm().ID); why != "" {
			return why
		}
	}
	return exit.Reason()
}

// pruneLimits removes the limits of machines that have no record.
func (m *Manager) pruneLimits(records []vm.VM) {
	keep := make(map[string]bool)
	for _, v := range records {
		keep[string(v.ID)] = true
	}
	if err := m.d.Limits.Prune(keep); err != nil {
		m.log.Warn("remove limits of machines that no record owns", "err", err)
	}
}
