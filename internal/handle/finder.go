package handle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// A Finder finds VMM processes in the process table, children of ours or not.
// It is a [vmm.Finder]. The zero value is ready; a Finder must not be copied.
//
// It remembers where it found a process and looks there first, so that asking
// again costs no scan.
type Finder struct {
	mu   sync.Mutex
	last map[vmm.Signature]Handle // pid and start time alone; guarded by mu
}

// Find returns the process with signature s, or an error that is
// [vmm.ErrNoProcess]. If there are several, it returns one: kill it and ask
// again. Any other error says that the process table could not be read, so
// nothing is known.
func (f *Finder) Find(ctx context.Context, s vmm.Signature, h vmm.Hint) (vmm.Process, error) {
	p, _, err := f.FindHint(ctx, s, Handle{PID: h.PID, StartTime: h.StartTime})
	return p, err
}

// FindHint is [Finder.Find], quicker where h tells the right process, and
// sure of one that hides its command line. It returns h with PID and StartTime
// as the process table has them; if there is no process, h as it was, so that
// what it names can be cleaned up.
func (f *Finder) FindHint(ctx context.Context, s vmm.Signature, h Handle) (vmm.Process, Handle, error) {
	p, err := f.find(ctx, s, h)
	switch {
	case errors.Is(err, errNotOurs):
		f.remember(s, nil)
		return nil, h, vmm.ErrNoProcess
	case err != nil:
		return nil, h, fmt.Errorf("find the VMM process: %w", err)
	}
	f.remember(s, p)
	h.PID, h.StartTime = p.pid, p.start
	return p, h, nil
}

// find looks where the process was, then everywhere for its signature, and
// last whether the one that was there has only lost its signature.
func (f *Finder) find(ctx context.Context, s vmm.Signature, h Handle) (*process, error) {
	hints := []Handle{f.recall(s), h}
	p, err := first(hints, s, func(i info, _ Handle) bool { return i.has(s) })
	if err == nil || !errors.Is(err, errNotOurs) {
		return p, err
	}
	p, err = scan(ctx, s)
	if err == nil || !errors.Is(err, errNotOurs) {
		return p, err
	}
	return first(hints, s, func(i info, h Handle) bool { return i.is(h, s) })
}

// first returns the first process of hints that is right.
func first(hints []Handle, s vmm.Signature, right func(info, Handle) bool) (*process, error) {
	for _, h := range hints {
		if h.PID <= 0 {
			continue
		}
		p, err := hold(h.PID, s.UID, func(i info) bool { return right(i, h) })
		if err == nil || !errors.Is(err, errNotOurs) {
			return p, err
		}
	}
	return nil, errNotOurs
}

// scan looks at every process, at those of the right user more closely.
func scan(ctx context.Context, s vmm.Signature) (*process, error) {
	pids, err := listPIDs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if !maybe(pid, s) {
			continue
		}
		p, err := hold(pid, s.UID, func(i info) bool { return i.has(s) })
		if err == nil || !errors.Is(err, errNotOurs) {
			return p, err
		}
	}
	return nil, errNotOurs
}

// maybe tells cheaply that a process is not worth a closer look: the owner of
// its directory is the user it effectively runs as, and its command line has
// no such argument. What cannot be read is worth one.
func maybe(pid int, s vmm.Signature) bool {
	var st unix.Stat_t
	if err := unix.Stat(procPath(pid, ""), &st); err == nil && st.Uid != s.UID {
		return false
	}
	args, err := readArgs(pid)
	empty := len(args) == 1 && len(args[0]) == 0
	return err != nil || empty && s.UID != 0 || hasArgs(args, s)
}

// listPIDs returns the pids of every process, in order.
func listPIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func (f *Finder) recall(s vmm.Signature) Handle {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[s]
}

// remember keeps where the process with signature s is; nil: nowhere.
func (f *Finder) remember(s vmm.Signature, p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == nil {
		delete(f.last, s)
		return
	}
	if f.last == nil {
		f.last = make(map[vmm.Signature]Handle)
	}
	f.last[s] = Handle{PID: p.pid, StartTime: p.start}
}
