package session

import "time"

// SetPatience makes m wait for guests and disks for d.
func (m *Manager) SetPatience(d time.Duration) {
	m.patience = patience{look: d, disk: d, start: d, act: d}
}

// Told is told.
var Told = told
