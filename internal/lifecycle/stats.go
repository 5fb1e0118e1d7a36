package lifecycle

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// statsTime is how long VMM and agent of a machine may take to tell what it
// uses.
const statsTime = time.Second

// Stats is what a machine that is up uses.
type Stats struct {
	VM      vm.VM
	At      time.Time
	Process vmm.Usage           // of the host, by its VMM
	Net     network.Traffic     // since its tap was made
	Disk    vmm.DiskTraffic     // since its VMM started; zero if that does not answer
	Root    int64               // bytes of the host's file system that its root disk takes
	Work    int64               // the same of its work disk
	Guest   *wire.StatsResponse // nil: its agent does not answer at once
}

// Stats tells what machines use. One that is not up is an error of kind
// [errkind.Conflict].
func (m *Manager) Stats(ctx context.Context, vms []vm.VM) ([]Stats, error) {
	var ids []string
	for _, v := range vms {
		if !v.State.Up() {
			return nil, errkind.New(errkind.Conflict, "machine %q is not running (%s)", v.Name, describe(v))
		}
		ids = append(ids, string(v.ID))
	}
	carried, err := m.d.Network.Traffic(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]Stats, len(vms))
	var wg sync.WaitGroup
	for i, v := range vms {
		all[i] = Stats{VM: v, Net: carried[string(v.ID)]}
		wg.Go(func() { m.measure(ctx, &all[i]) })
	}
	wg.Wait()
	return all, nil
}

// measure fills in what can be told of one machine: what does not answer has
// its reason in another place.
func (m *Manager) measure(ctx context.Context, s *Stats) {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	s.At = time.Now()
	if p, err := m.find(ctx, s.VM); err == nil {
		s.Process, _ = p.Usage() // it may be ending
		p.Close()
	}
	if d, err := m.driver(s.VM.Spec.Driver); err == nil {
		s.Root = allocated(d.Layers.Path(m.rootLayer(s.VM, ground{})))
	}
	s.Work = allocated(m.d.Work.Path(m.workLayer(s.VM)))
	l := m.liveOf(s.VM.ID)
	if l == nil {
		return
	}
	if mach, _ := l.standing(); mach != nil {
		s.Disk, _ = mach.DiskTraffic(ctx)
	}
	// Not dialled for this alone, and not asked while it stands.
	if a := l.connected(); a != nil && s.VM.State == vm.Running {
		if resp, err := a.Stats(ctx, connect.NewRequest(&wire.StatsRequest{})); err == nil {
			s.Guest = resp.Msg
		}
	}
}

// allocated is how much of its file system a file takes, in bytes; 0 if there
// is none.
func allocated(path string) int64 {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size()
	}
	return st.Blocks * 512 // whatever the block size is (stat(2))
}
