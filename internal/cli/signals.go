package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals hands the signals that end a program to whoever handles them now.
type signals struct {
	ch   chan os.Signal
	done chan struct{}

	mu     sync.Mutex
	handle func(syscall.Signal) // guarded by mu
}

// catchSignals makes signals end a context, until something else handles them.
// A signal that was ignored when we were started (nohup, a shell's background
// job) stays ignored.
func catchSignals(cancel context.CancelCauseFunc) *signals {
	s := &signals{
		ch:     make(chan os.Signal, 8),
		done:   make(chan struct{}),
		handle: func(sig syscall.Signal) { cancel(signaled{sig}) },
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(sig) {
			signal.Notify(s.ch, sig)
		}
	}
	go func() {
		defer close(s.done)
		for sig := range s.ch {
			s.mu.Lock()
			h := s.handle
			s.mu.Unlock()
			h(sig.(syscall.Signal))
		}
	}()
	return s
}

// divert has h called with each signal from now on, in their order, and
// returns a function that undoes that. h must not block.
func (s *signals) divert(h func(syscall.Signal)) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.handle
	s.handle = h
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.handle = old
	}
}

// stop gives signals their usual effect again.
func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.ch)
	<-s.done
}
