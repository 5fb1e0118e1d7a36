package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// lastWords is how long the VMM's last message may take after its process has
// gone: it is in a socket's buffer already.
const lastWords = time.Second

// recordAgain is how long to wait before the end of a machine is recorded
// again, after the store failed: the disk may be full.
const recordAgain = time.Second

// A live is what is true of a running machine in this life of the daemon.
type live struct {
	rec  atomic.Pointer[vm.VM] // as it was when it was taken up, or claimed; see vm
	gone chan struct{}         // closed when the process has ended
	ctx  context.Context       // ends with the process, and when it is taken down
	end  context.CancelFunc

	dialing sync.Mutex // held while dialling; before mu

	mu     sync.Mutex
	mach   vmm.Machine // nil until the VMM's API has answered; guarded by mu
	agent  guest.Agent // nil until dialled; guarded by mu
	status vmm.Status  // what the VMM last said of its guest; guarded by mu
	tried  time.Time   // when it was last let go on; guarded by mu
	ending bool        // it is being asked to power off; guarded by mu
	held   string      // why it is to stay paused; empty: it is not; guarded by mu
	token  string      // what greets the agent; guarded by mu
	due    due         // what its guest must be told; guarded by mu
	called string      // what its guest calls itself while it waits in the pool; guarded by mu

	silent silent    // who does not answer; guarded by mu
	since  time.Time // when that began; guarded by mu

	asking  sync.Mutex // held while VMM and agent are asked whether they answer
	fitting sync.Mutex // held while it is paused or let go on; before mu

	used      lastUse
	autoPause atomic.Int64 // how long nobody has to use it for it to be paused, a [time.Duration]; 0: never
	idling    sync.Mutex   // held while it is asked whether it is idle, and paused then
	upSince   time.Time    // when it was started
	net       netLook

	nmu     sync.Mutex
	notices map[chan string]bool // guarded by nmu
}

// vm is the machine as it was when it was taken up, or claimed.
func (l *live) vm() vm.VM { return *l.rec.Load() }

// close drops the connections. The process goes on.
func (l *live) close() {
	l.end() // whoever dials gives up
	l.dialing.Lock()
	defer l.dialing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mach != nil {
		l.mach.Close()
	}
	if l.agent != nil {
		l.agent.Close()
	}
}

// exit is why the machine's VMM ended, as far as it said.
func (l *live) exit() vmm.Exit {
	l.mu.Lock()
	mach := l.mach
	l.mu.Unlock()
	if mach == nil {
		return vmm.ExitUnknown
	}
	select {
	case <-mach.Done():
	case <-time.After(lastWords):
	}
	return mach.Exit()
}

func (m *Manager) liveOf(id vm.ID) *live {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[id]
}

func (m *Manager) allLive() []*live {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.live))
}

// watch takes up a machine: when its process ends by itself, that is recorded.
// It takes over p and mach.
func (m *Manager) watch(v vm.VM, p vmm.Process, mach vmm.Machine) {
	l := &live{mach: mach, token: v.Token, gone: make(chan struct{}), upSince: m.idle.now()}
	l.rec.Store(&v)
	if v.State.Up() {
		l.upSince = v.StartedAt
	}
	if v.Held {
		l.held = cmp.Or(v.StateReason, onRequest)
	}
	m.touch(l) // it is not known how long nobody has used it
	l.autoPause.Store(int64(v.Spec.AutoPause))
	l.ctx, l.end = context.WithCancel(m.ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		go l.close()
		p.Close()
		return
	}
	m.live[v.ID] = l
	if mach != nil {
		m.wg.Go(func() { m.attend(l, mach) })
	}
	m.wg.Go(func() {
		defer p.Close()
		if err := p.Wait(m.ctx); err != nil {
			if m.ctx.Err() == nil {
				m.log.Error("watch the VMM", "vm", v.ID, "err", err)
			}
			return
		}
		close(l.gone)
		l.end()
		m.ended(l)
	})
}

// forget drops the connections to a machine that is about to be taken down by
// us.
func (m *Manager) forget(id vm.ID) {
	m.mu.Lock()
	l := m.live[id]
	delete(m.live, id)
	m.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// ended takes down what is left of a machine whose VMM ended by itself, and
// records why it did.
func (m *Manager) ended(l *live) {
	reason := m.whyEnded(l)
	unlock, err := m.locks.Lock(m.ctx, l.vm().ID)
	if err != nil {
		return // the daemon ends; the next one finds it
	}
	defer unlock()
	if m.liveOf(l.vm().ID) != l {
		return // taken down by us while we waited for the lock
	}
	v, err := m.recordEnd(l.vm().ID, reason)
	if err != nil {
		return // the daemon ends, or the machine is no more
	}
	if _, err := m.takeDown(m.ctx, v, m.undoAll(v), reason, nil); err != nil {
		m.log.Error("take down a machine that ended", "vm", l.vm().ID, "err", err)
	}
	if v.Purpose != vm.ForUser {
		m.background(func() { m.discardLater(v.ID) })
	}
}

// recordEnd records that a machine has ended, as often as it takes.
func (m *Manager) recordEnd(id vm.ID, reason string) (vm.VM, error) {
	for {
		v, err := m.change(m.ctx, id, vm.Change{To: vm.Stopping, Reason: reason})
		if k := errkind.Of(err); err == nil || m.ctx.Err() != nil || k == errkind.NotFound || k == errkind.Conflict {
			return v, err
		}
		m.log.Error("record the end of a machine", "vm", id, "err", err)
		select {
		case <-time.After(recordAgain):
		case <-m.ctx.Done():
		}
	}
}

// firstContact waits until the agent of a machine that boots, or was restored,
// answers. It ends early if the VMM does, with what the guest said last.
func (m *Manager) firstContact(ctx context.Context, v vm.VM, b *boot) error {
	l := m.liveOf(v.ID)
	if l == nil {
		return errors.New("the VMM has gone")
	}
	limit := m.bootLimit(v)
	if b.template != nil {
		limit = min(limit, identifyTime*slower(v))
	}
	dctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	go func() {
		select {
		case <-l.gone:
			cancel()
		case <-dctx.Done():
		}
	}()
	_, err := m.agentOf(dctx, l)
	select {
	case <-l.gone:
		return m.bootError(l, b.console)
	default:
	}
	if err != nil && ctx.Err() == nil && errors.Is(dctx.Err(), context.DeadlineExceeded) {
		return m.silentError(l, b.console, limit)
	}
	return err
}
