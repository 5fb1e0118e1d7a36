package lifecycle

import "time"

// SetPatience makes m wait less for what does not answer. To be called before
// anything runs.
func (m *Manager) SetPatience(answer, agent time.Duration) {
	m.patience = patience{answer: answer, agent: agent}
}
