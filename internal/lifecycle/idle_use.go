package lifecycle

import (
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/vm"
)

// idle is what a Manager needs to know who uses machines.
type idle struct {
	now   func() time.Time
	began time.Time // when the manager was made; times of use count from there

	looking sync.Mutex // held while machines are looked at; before everything of a live machine
	blind   string     // why connections cannot be looked at, as logged; guarded by looking

	mu    sync.Mutex    // after everything else
	users map[vm.ID]int // calls that work in a machine; none is 0; guarded by mu
}

func newIdle(now func() time.Time) idle {
	return idle{now: now, began: now(), users: make(map[vm.ID]int)}
}

// clock is the time since the manager was made. It does not jump when somebody
// sets the host's clock, or the host sleeps.
func (i *idle) clock() time.Duration { return i.now().Sub(i.began) }

// lastUse is when a machine was last used, by [idle.clock], in this life of the
// daemon.
type lastUse struct{ atomic.Int64 }

// raise notes a use, unless there was a later one.
func (u *lastUse) raise(at time.Duration) {
	for {
		was := u.Load()
		if int64(at) <= was || u.CompareAndSwap(was, int64(at)) {
			return
		}
	}
}

// Use notes that somebody uses a machine, until done is called, which may be
// done twice: it is not paused for being idle meanwhile. To be called before the
// machine's agent is asked for. It does nothing else; one that stands is resumed
// by [Manager.Agent].
func (m *Manager) Use(id vm.ID) (done func()) {
	m.idle.mu.Lock()
	m.idle.users[id]++
	m.idle.mu.Unlock()
	return sync.OnceFunc(func() {
		m.touchID(id) // before the user has gone: there is no moment without either
		m.idle.mu.Lock()
		defer m.idle.mu.Unlock()
		if m.idle.users[id]--; m.idle.users[id] == 0 {
			delete(m.idle.users, id)
		}
	})
}

// isUsed reports whether a call works in a machine.
func (m *Manager) isUsed(id vm.ID) bool {
	m.idle.mu.Lock()
	defer m.idle.mu.Unlock()
	return m.idle.users[id] > 0
}

// touch notes that a machine is used at this moment.
func (m *Manager) touch(l *live) { l.used.raise(m.idle.clock()) }

// touchID is touch of a machine that may not run.
func (m *Manager) touchID(id vm.ID) {
	if l := m.liveOf(id); l != nil {
		m.touch(l)
	}
}

// isIdle reports whether nobody has used a machine for as long as it takes to
// be paused. Users are looked for first: one who goes is noted before.
func (m *Manager) isIdle(l *live) bool {
	after := time.Duration(l.autoPause.Load())
	return after > 0 && !m.isUsed(l.vm().ID) && m.idle.clock()-time.Duration(l.used.Load()) >= after
}
