package lifecycle

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A host's disk that fills up must cost nobody anything. Machines are paused
// before it is full, and go on when there is room; one that was quicker stands
// because its VMM met the end of the disk, which comes to the same. Their
// records say so, as do the commands that run in them. A few megabytes are kept
// for the records themselves.
const (
	// pauseBelow is how much of the disk has to be free for machines to run,
	// in bytes; resumeAbove is how much has to be for them to go on.
	pauseBelow  = 64 << 20
	resumeAbove = 128 << 20
	// reserved is what is kept for records, in bytes.
	reserved = 8 << 20
	// resumeEvery is how soon a machine that stood again is tried again.
	resumeEvery = 2 * time.Second
)

// CheckRoom pauses the machines whose disk is about to be full, and lets those
// go on that have room again. The daemon calls it from time to time.
func (m *Manager) CheckRoom(ctx context.Context) {
	_, free, err := m.d.Host.DiskBytes(m.d.Paths.State)
	if err != nil {
		m.log.Warn("look how full the disk is", "err", err)
		return
	}
	m.keepReserve(free)
	for _, l := range m.allLive() {
		mach, st := l.standing()
		switch {
		case mach == nil:
			continue
		case st == vmm.Running && free < pauseBelow:
			err = mach.Pause(ctx)
		case stands(st) && free >= resumeAbove && l.mayTry():
			err = mach.Resume(ctx)
		}
		if err != nil && l.ctx.Err() == nil {
			m.log.Warn("disk is full or has room again", "vm", l.v.ID, "err", err)
		}
	}
}

// attend follows whether a machine's guest stands, as its VMM tells, until
// either ends.
func (m *Manager) attend(l *live, mach vmm.Machine) {
	for {
		var again <-chan time.Time
		if m.lookWhetherStands(l, mach) != nil {
			again = time.After(resumeEvery)
		}
		select {
		case <-mach.Changed():
		case <-again:
		case <-mach.Done():
			return
		case <-l.ctx.Done():
			return
		}
	}
}

// stands reports whether a guest's processors stand.
func stands(s vmm.Status) bool { return s == vmm.Paused || s == vmm.IOError }

// lookWhetherStands makes the record of a machine that is up say whether its
// guest stands, and tells those whose commands run in it. An error means that
// it is not known, or not recorded.
func (m *Manager) lookWhetherStands(l *live, mach vmm.Machine) error {
	st, err := mach.Status(l.ctx)
	if err != nil {
		return err
	}
	if was := l.setStatus(st); stands(was) != stands(st) {
		l.tell(m.standNotice(l.v, stands(st)))
	}
	unlock, err := m.locks.Lock(l.ctx, l.v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	err = m.recordStands(l, mach)
	if err != nil && l.ctx.Err() == nil {
		m.log.Error("record whether a machine stands", "vm", l.v.ID, "err", err)
	}
	return err
}

// recordStands records what the VMM says now: it may have changed while the
// machine's lock was waited for. Preconditions: the machine's lock is held.
func (m *Manager) recordStands(l *live, mach vmm.Machine) error {
	st, err := mach.Status(l.ctx)
	if err != nil || m.liveOf(l.v.ID) != l {
		return err
	}
	v, err := m.d.Records.Get(l.ctx, l.v.ID)
	if err != nil {
		return err
	}
	switch {
	case v.State == vm.Running && stands(st):
		_, err = m.change(l.ctx, v.ID, vm.Change{To: vm.Paused, Reason: m.fullReason()})
	case v.State == vm.Paused && st == vmm.Running:
		_, err = m.change(l.ctx, v.ID, vm.Change{To: vm.Running})
	default:
		return nil
	}
	m.log.Warn("the guest stands or goes on", "vm", v.ID, "name", v.Name, "status", st)
	return err
}

// fullReason says that there is no room, and how much there is.
func (m *Manager) fullReason() string {
	text := "the host's disk is full"
	if _, free, err := m.d.Host.DiskBytes(m.d.Paths.State); err == nil {
		text += fmt.Sprintf(": %dM left under %s", free>>20, m.d.Paths.State)
	}
	return text
}

func (m *Manager) standNotice(v vm.VM, stands bool) string {
	if stands {
		return fmt.Sprintf("machine %s is paused: %s; it goes on when %s are free", v.Name, m.fullReason(), config.Size(resumeAbove))
	}
	return fmt.Sprintf("machine %s goes on", v.Name)
}

// pausedError refuses what a machine cannot do that stands.
func (m *Manager) pausedError(v vm.VM) error {
	err := errkind.New(errkind.Conflict, "machine %q is paused: %s", v.Name, v.StateReason)
	return errkind.WithHint(err, "df -h "+m.d.Paths.State)
}

// wake lets a machine go on that is to power off. One for which there is no
// room is left standing: killed, it would lose what it has not written.
func (m *Manager) wake(ctx context.Context, v vm.VM) error {
	l := m.liveOf(v.ID)
	if l == nil {
		return nil // nothing runs
	}
	_, free, err := m.d.Host.DiskBytes(m.d.Paths.State)
	if err != nil {
		return err
	}
	mach, _ := l.standing()
	if free < resumeAbove || mach == nil {
		return errkind.WithHint(fmt.Errorf("%w; killed, it loses what it has not written", m.pausedError(v)), "banger vm kill "+v.Name)
	}
	return mach.Resume(ctx)
}

// change records one step in a machine's life. On a full disk it gives the
// room for that which was kept.
func (m *Manager) change(ctx context.Context, id vm.ID, c vm.Change) (vm.VM, error) {
	v, err := m.d.Records.Change(ctx, id, c)
	if errkind.Of(err) != errkind.Host || !m.giveReserve() {
		return v, err
	}
	return m.d.Records.Change(ctx, id, c)
}

func (m *Manager) reservePath() string { return filepath.Join(m.d.Paths.State, "reserve") }

// keepReserve takes the room for records, where there is plenty.
func (m *Manager) keepReserve(free int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reserve || free < resumeAbove+reserved {
		return
	}
	if err := m.d.Host.Reserve(m.reservePath(), reserved); err != nil {
		m.log.Warn("keep room for records", "err", err)
		return
	}
	m.reserve = true
}

// giveReserve gives the kept room back to the disk, and reports whether there
// was any.
func (m *Manager) giveReserve() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	had := m.reserve
	m.reserve = false
	if err := m.d.Host.Reserve(m.reservePath(), 0); err != nil {
		m.log.Warn("give up the room for records", "err", err)
	}
	return had
}

// standing returns the connection to the VMM, nil if it does not answer, and
// what it last said of its guest.
func (l *live) standing() (vmm.Machine, vmm.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mach, l.status
}

func (l *live) setStatus(s vmm.Status) (was vmm.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, l.status = l.status, s
	return was
}

// mayTry reports whether it is time to let a machine that stands go on, and
// takes the turn: one that met the end of the disk although there seems to be
// room (a quota) may do so again at once.
func (l *live) mayTry() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status == vmm.IOError && time.Since(l.tried) < resumeEvery {
		return false
	}
	l.tried = time.Now()
	return true
}

// tell hands a line to everybody who listens. Who does not listen fast enough
// misses it.
func (l *live) tell(text string) {
	l.nmu.Lock()
	defer l.nmu.Unlock()
	for ch := range l.notices {
		select {
		case ch <- text:
		default:
		}
	}
}

// Notices returns a channel of lines for people about a machine that runs: that
// it came to stand, and that it goes on. stop ends them; the channel is never
// closed. For a machine that does not run there are none.
func (m *Manager) Notices(id vm.ID) (lines <-chan string, stop func()) {
	l := m.liveOf(id)
	if l == nil {
		return nil, func() {}
	}
	ch := make(chan string, 4)
	l.nmu.Lock()
	defer l.nmu.Unlock()
	if l.notices == nil {
		l.notices = make(map[chan string]bool)
	}
	l.notices[ch] = true
	return ch, func() {
		l.nmu.Lock()
		defer l.nmu.Unlock()
		delete(l.notices, ch)
	}
}
