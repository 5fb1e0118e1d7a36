package lifecycle

import (
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// SetPatience makes m wait less for what does not answer. To be called before
// anything runs.
func (m *Manager) SetPatience(answer, agent time.Duration) {
	m.patience.answer, m.patience.agent = answer, agent
}

// SetQuiet makes m leave guests alone for that long before they are frozen.
func (m *Manager) SetQuiet(d time.Duration) { m.patience.quiet = d }

// SetNow gives m another clock to tell by who is idle. To be called before
// anything runs.
func (m *Manager) SetNow(now func() time.Time) { m.idle.now, m.idle.began = now, now() }

// LookForIdle is PauseIdle that returns when what it found is paused.
func (m *Manager) LookForIdle() { m.lookForIdle(m.ctx, m.pauseIdle) }

// Status is what a machine's VMM last said of its guest.
func (m *Manager) Status(id vm.ID) vmm.Status {
	_, st := m.liveOf(id).standing()
	return st
}

// Stopping is closed when m has begun to stop.
func (m *Manager) Stopping() <-chan struct{} { return m.ctx.Done() }
