package lifecycle

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/trace"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A host's disk that fills up must cost nobody anything. Machines are paused
// before it is full, and go on when there is room; one that was quicker stands
// because its VMM met the end of the disk, which comes to the same. Their
// records say so, as do the commands that run in them. A few megabytes are kept
// for the records themselves. One that a user paused stands also where there is
// room.
const (
	// pauseBelow is how much of the disk has to be free for machines to run,
	// in bytes; resumeAbove is how much has to be for them to go on.
	pauseBelow  = 64 << 20
	resumeAbove = 128 << 20
	// reserved is what is kept for records, in bytes.
	reserved = 8 << 20
	// While less than scarce is free, in bytes, it is looked at each scarceEvery,
	// else each roomEvery: a guest must not write the rest between two looks.
	scarce      = 1 << 30
	scarceEvery = 50 * time.Millisecond
	roomEvery   = time.Second
	// resumeEvery is how soon a machine that stood again is tried again.
	resumeEvery = 2 * time.Second
)

// CheckRoom pauses the machines whose disk is about to be full, and lets those
// go on that have room again; templates are not made meanwhile. The daemon calls it again after the time that it
// returns.
func (m *Manager) CheckRoom() (again time.Duration) {
	_, free, err := m.d.Host.DiskBytes(m.d.Paths.State)
	if err != nil {
		m.log.Warn("look how full the disk is", "err", err)
		return roomEvery
	}
	m.keepReserve(free)
	if free < resumeAbove {
		m.making.giveUp(errNoRoom) // before anybody has to stand
	}
	machines := m.allLive()
	for _, l := range machines {
		m.background(func() { m.fitRoom(l, free) })
	}
	if len(machines) > 0 && free < scarce && free > pauseBelow/2 {
		return scarceEvery
	}
	return roomEvery
}

// room tells how much of the disk is free, in bytes, and whether that is enough
// for a machine to go on.
func (m *Manager) room() (free int64, enough bool, err error) {
	_, free, err = m.d.Host.DiskBytes(m.d.Paths.State)
	return free, free >= resumeAbove, err
}

// roomToStart refuses a start on a disk on which the machine would be paused at
// once.
func (m *Manager) roomToStart() error {
	free, enough, err := m.room()
	if err != nil || enough {
		return err
	}
	return errkind.WithHint(errkind.New(errkind.Host, "%s has %s left, and a machine that runs takes %s",
		m.d.Paths.State, config.Size(free>>20<<20), config.Size(resumeAbove)), "df -h "+m.d.Paths.State)
}

// fitRoom pauses one machine, or lets it go on, whichever it is that it should:
// an earlier daemon may have died before it had. While it waits for a VMM that
// does not answer, others are not held up.
func (m *Manager) fitRoom(l *live, free int64) {
	if !l.fitting.TryLock() {
		return // it waits still
	}
	defer l.fitting.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, attachTime)
	defer cancel()
	mach, st := l.standing()
	var err error
	switch {
	case mach == nil:
	case st == vmm.Running && (free < pauseBelow || l.isHeld()) && !l.isEnding():
		err = mach.Pause(ctx)
	case stands(st) && !l.isHeld() && free >= resumeAbove && l.mayTry():
		l.setDue("")
		if err = mach.Resume(ctx); err == nil {
			m.background(func() { m.tellAny(l.ctx, l) })
		}
	}
	if err != nil && l.ctx.Err() == nil {
		m.log.Warn("disk is full or has room again", "vm", l.vm().ID, "err", err)
	}
}

// attend follows whether a machine's guest stands, as its VMM tells, until
// either ends. What it finds is recorded by somebody else, for that waits for
// the machine's lock, which a start holds until the guest answers.
func (m *Manager) attend(l *live, mach vmm.Machine) {
	changed := make(chan struct{}, 1)
	m.background(func() { m.recordWhetherStands(l, mach, changed) })
	for {
		var again <-chan time.Time
		if err := m.lookWhetherStands(l, mach); err != nil {
			again = time.After(resumeEvery)
		}
		select {
		case changed <- struct{}{}:
		default: // it is to record anyway
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

// lookWhetherStands asks the VMM, and tells those whose commands run in the
// machine if it came to stand or went on.
func (m *Manager) lookWhetherStands(l *live, mach vmm.Machine) error {
	st, err := mach.Status(l.ctx)
	if err != nil {
		return err
	}
	if was := l.setStatus(st); stands(was) != stands(st) {
		l.tell(m.standNotice(l, stands(st)))
	}
	return nil
}

// recordWhetherStands makes the record of a machine that is up say whether its
// guest stands, each time that it may have changed.
func (m *Manager) recordWhetherStands(l *live, mach vmm.Machine, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-mach.Done():
			return
		case <-l.ctx.Done():
			return
		}
		for m.lockAndRecordStands(l, mach) != nil {
			select {
			case <-time.After(resumeEvery):
			case <-mach.Done():
				return
			case <-l.ctx.Done():
				return
			}
		}
	}
}

func (m *Manager) lockAndRecordStands(l *live, mach vmm.Machine) error {
	unlock, err := m.locks.Lock(l.ctx, l.vm().ID)
	if err != nil {
		return err
	}
	defer unlock()
	err = m.recordStands(l, mach)
	if err != nil && l.ctx.Err() == nil {
		m.log.Error("record whether a machine stands", "vm", l.vm().ID, "err", err)
	}
	return err
}

// recordStands records what the VMM says now: it may have changed while the
// machine's lock was waited for. A guest that neither stands nor runs as
// recorded for another reason than room is about to, see fitRoom. Preconditions:
// the machine's lock is held.
func (m *Manager) recordStands(l *live, mach vmm.Machine) error {
	st, err := mach.Status(l.ctx)
	if err != nil || m.liveOf(l.vm().ID) != l {
		return err
	}
	v, err := m.d.Records.Get(l.ctx, l.vm().ID)
	if err != nil {
		return err
	}
	_, enough, err := m.room()
	if err != nil {
		return err
	}
	switch {
	case v.State == vm.Running && (st == vmm.IOError || stands(st) && !enough):
		_, err = m.change(l.ctx, v.ID, vm.Change{To: vm.Paused, Reason: m.fullReason()})
	case v.State == vm.Paused && st == vmm.Running && !v.Held:
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

func (m *Manager) standNotice(l *live, stands bool) string {
	name := l.vm().Name
	switch {
	case stands && l.isHeld():
		why := l.whyHeld()
		if why != onRequest {
			why = "paused: " + why
		}
		return fmt.Sprintf("machine %s is %s; `banger vm resume %s` lets it go on", name, why, name)
	case stands:
		return fmt.Sprintf("machine %s is paused: %s; it goes on when %s are free", name, m.fullReason(), config.Size(resumeAbove))
	}
	return fmt.Sprintf("machine %s goes on", name)
}

// pausedError refuses what a machine cannot do that stands.
func (m *Manager) pausedError(v vm.VM) error {
	err := errkind.New(errkind.Conflict, "machine %q is paused: %s", v.Name, v.StateReason)
	return errkind.WithHint(err, "df -h "+m.d.Paths.State)
}

// mayEnd refuses to power off a machine that stands and has no room to go on: it
// is left standing, for killed it would lose what it has not written.
// Preconditions: the machine's lock is held.
func (m *Manager) mayEnd(v vm.VM) error {
	l := m.liveOf(v.ID)
	if l == nil {
		return nil // nothing runs
	}
	if _, st := l.standing(); !stands(st) {
		return nil
	}
	_, enough, err := m.room()
	if err != nil || enough {
		return err
	}
	v.StateReason = m.fullReason()
	return m.keepsStanding(v)
}

// goOnToEnd lets a machine go on that is to power off, if it stands.
func (m *Manager) goOnToEnd(ctx context.Context, l *live) error {
	mach, _ := l.standing()
	if mach == nil {
		return nil // what it does nobody knows
	}
	// It may have come to stand a moment ago, or been taken up.
	err := m.lookWhetherStands(l, mach)
	if _, st := l.standing(); err == nil && stands(st) {
		err = m.letGo(ctx, l, mach)
	}
	return err
}

// keepsStanding refuses to end a machine that stands.
func (m *Manager) keepsStanding(v vm.VM) error {
	return errkind.WithHint(fmt.Errorf("%w; killed, it loses what it has not written", m.pausedError(v)), "banger vm kill "+v.Name)
}

// change records one step in a machine's life. On a full disk it gives the
// room for that which was kept.
func (m *Manager) change(ctx context.Context, id vm.ID, c vm.Change) (vm.VM, error) {
	defer trace.Span(ctx, trace.Daemon, "record "+string(c.To))()
	v, err := m.d.Records.Change(ctx, id, c)
	if errkind.Of(err) != errkind.Host || !m.giveReserve() {
		return v, err
	}
	return m.d.Records.Change(ctx, id, c)
}

func (m *Manager) reservePath() string { return filepath.Join(m.d.Paths.State, "reserve") }

// keepReserve takes the room for records, where there is plenty.
func (m *Manager) keepReserve(free int64) {
	m.reserveMu.Lock()
	defer m.reserveMu.Unlock()
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
// was any: an earlier daemon may have kept it.
func (m *Manager) giveReserve() bool {
	m.reserveMu.Lock()
	defer m.reserveMu.Unlock()
	m.reserve = false
	had, err := m.d.Host.Unreserve(m.reservePath())
	if err != nil {
		m.log.Warn("give up the room for records", "err", err)
	}
	return had
}

// setEnding says whether a machine is being asked to end: it is not paused
// then.
func (l *live) setEnding(ending bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = ending
}

func (l *live) isEnding() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ending
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
