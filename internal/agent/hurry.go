package agent

import (
	"sync"
	"time"
)

// hurry is whether the agent comes before everything else that runs in its guest.
type hurry struct {
	mu  sync.Mutex
	on  bool
	end *time.Timer // nil: it does not end by itself
}

const (
	// identityHurry is how long the agent comes first at most from when its
	// machine got its identity: who is to call Finish may have died.
	identityHurry = 10 * time.Second
	// wakeHurry is how long it does in a machine that stood and goes on.
	wakeHurry = 2 * time.Second
)

// setHurry makes the agent come first, or ends that. It does so from when a
// template goes on until the machine is finished, and for a moment whenever a
// machine goes on that stood. Else everything that a new clock, name and disk wake
// in the guest would go on at the same time, and on one processor whoever waits
// for the machine waits for all of it. A kernel may refuse; then it is slower.
func (s *Server) setHurry(on bool) {
	s.hurry.mu.Lock()
	defer s.hurry.mu.Unlock()
	s.hurry.stay()
	s.changeHurry(on)
}

// hurryFor makes the agent come first for some time from now on, if it does not
// already.
func (s *Server) hurryFor(d time.Duration) {
	s.hurry.mu.Lock()
	defer s.hurry.mu.Unlock()
	s.hurry.stay()
	if !s.hurry.on {
		s.changeHurry(true)
	}
	s.hurry.end = time.AfterFunc(d, func() { s.setHurry(false) })
}

// stay keeps a hurry from ending by itself. Preconditions: h.mu is held.
func (h *hurry) stay() {
	if h.end != nil {
		h.end.Stop()
		h.end = nil
	}
}

// changeHurry is setHurry. Preconditions: s.hurry.mu is held.
func (s *Server) changeHurry(on bool) {
	s.hurry.on = on
	if err := s.o.System.Hurry(on); err != nil {
		s.o.Log.Warn("come first", "on", on, "err", err)
	}
}
