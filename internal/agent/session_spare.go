package agent

import (
	"sync"
	"time"
)

// A spare is a supervisor that is started ahead, for that is most of what the start
// of a session takes: a program starts, and does everything for the first time.
// There is one for a while after each start.
type spare struct {
	mu      sync.Mutex
	u       *unborn     // nil: there is none
	coming  bool        // one has been launched and is not ready
	unasked bool        // one that gets ready is to end: nobody has asked for long
	timer   *time.Timer // of what is to become of it
}

const (
	// spareDelay is what a session that has just been started gets first.
	spareDelay = 50 * time.Millisecond
	// spareTime is how long a spare supervisor waits for a session.
	spareTime = 5 * time.Minute
)

// take returns the spare supervisor, if there is one.
func (p *spare) take() *unborn {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.u
	p.u = nil
	return u
}

// prepare sees to it that there will be a spare supervisor soon, for a while.
func (p *spare) prepare(s *sessions) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.unasked = false
	p.timer = time.AfterFunc(spareDelay, func() {
		if !p.begin() {
			return
		}
		// What goes wrong is told by the next start, that does without.
		u, err := s.launch(true)
		if err == nil {
			err = u.await()
		}
		p.end(u, err)
	})
}

// begin reports whether a spare supervisor is to be launched.
func (p *spare) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(spareTime, p.drop)
	if p.u != nil || p.coming {
		return false
	}
	p.coming = true
	return true
}

// end takes in a supervisor that is ready, or was not to be had.
func (p *spare) end(u *unborn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.coming = false
	switch {
	case u == nil:
	case err != nil || p.unasked:
		u.close()
	default:
		p.u = u
	}
}

// drop ends the spare supervisor, if there is one or one is coming.
func (p *spare) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.unasked = true; p.u != nil {
		p.u.close()
		p.u = nil
	}
}
