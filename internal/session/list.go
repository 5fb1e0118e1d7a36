package session

import (
	"context"
	"slices"
	"sync"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// Filter is what sessions are wanted; the zero value lets all through.
type Filter struct {
	Statuses []string // a session must have one
	Tags     []string // a session must have all
}

func (f Filter) check() error {
	for _, s := range f.Statuses {
		if !Status(s).Valid() {
			return errkind.New(errkind.Usage, "%.70q is no status of a session; there is %s", s, statusNames())
		}
	}
	return nil
}

func (f Filter) passes(s Session) bool {
	if len(f.Statuses) > 0 && !slices.Contains(f.Statuses, string(s.Status)) {
		return false
	}
	return !slices.ContainsFunc(f.Tags, func(t string) bool { return !slices.Contains(s.Tags, t) })
}

// List returns the sessions of a machine (empty: of all) that a filter lets
// through, brought up to date, in the order of their creation.
func (m *Manager) List(ctx context.Context, machine string, f Filter) ([]Session, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	machines, id, err := m.machines(ctx, machine)
	if err != nil {
		return nil, err
	}
	list, err := m.d.Records.Sessions(ctx, id)
	if err != nil {
		return nil, err
	}
	list = m.lookAll(ctx, list)
	m.sweep(machines)
	return slices.DeleteFunc(list, func(s Session) bool { return !f.passes(s) }), nil
}

// machines finds the machine that ref names, and its id; or all, for none.
func (m *Manager) machines(ctx context.Context, ref string) ([]vm.VM, vm.ID, error) {
	if ref == "" {
		all, err := m.d.Records.List(ctx)
		m.forget(all)
		return all, "", err
	}
	v, err := m.d.Records.Resolve(ctx, ref)
	return []vm.VM{v}, v.ID, err
}

// lookAll is look for sessions of any machines, which are asked at the same
// time.
func (m *Manager) lookAll(ctx context.Context, list []Session) []Session {
	of := make(map[vm.ID][]Session)
	for _, s := range list {
		of[s.Machine] = append(of[s.Machine], s)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	now := make(map[ID]Session, len(list)) // guarded by mu
	for id, group := range of {
		wg.Go(func() {
			seen := m.look(ctx, id, group)
			mu.Lock()
			defer mu.Unlock()
			for _, s := range seen {
				now[s.ID] = s
			}
		})
	}
	wg.Wait()
	out := []Session{}
	for _, s := range list {
		if s, ok := now[s.ID]; ok {
			out = append(out, s)
		}
	}
	return out
}

// Show returns a session, brought up to date.
func (m *Manager) Show(ctx context.Context, machine, ref string) (Session, error) {
	v, s, err := m.find(ctx, machine, ref)
	if err != nil {
		return s, err
	}
	m.sweep([]vm.VM{v})
	return m.lookOne(ctx, s)
}
