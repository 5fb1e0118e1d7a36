package server

import (
	"sync"

	"banger/internal/api"
	"banger/internal/lifecycle"
)

// backlog is how much progress may wait for a slow reader; what comes beyond
// it is dropped, for progress is old the moment it is late.
const backlog = 64

// A reporter sends progress to a caller without ever making the work wait.
type reporter struct {
	mu     sync.Mutex
	ch     chan *api.Progress // closed by stop; guarded by mu
	closed bool               // guarded by mu
	done   chan struct{}
}

// report starts sending. What send returns is of no matter: the work may go on
// when its caller has gone.
func report(send func(*api.Progress) error) *reporter {
	r := &reporter{ch: make(chan *api.Progress, backlog), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for p := range r.ch {
			_ = send(p)
		}
	}()
	return r
}

// progress may be called concurrently, and after stop.
func (r *reporter) progress(stage, detail string, done, total int64) {
	if stage == lifecycle.Notice {
		r.notice(detail)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	select {
	case r.ch <- &api.Progress{Stage: stage, Detail: detail, Done: done, Total: total}:
	default:
	}
}

// notice tells what people should know, and waits until there is room for it.
// Not after stop.
func (r *reporter) notice(line string) { r.ch <- &api.Progress{Notice: line} }

var _ lifecycle.Progress = (&reporter{}).progress

// stop returns when nothing is being sent any more, so that the caller may
// send the outcome. It may be called twice.
func (r *reporter) stop() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.ch)
	}
	r.mu.Unlock()
	<-r.done
}
