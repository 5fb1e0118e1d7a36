package agent

import (
	"net/http"
	"sync"
	"time"
)

// calls counts the calls that are being handled. An HTTP/2 server that is
// closed does not wait for its handlers, and one of them may have a process
// group still to kill. The zero value is ready for use.
type calls struct {
	mu    sync.Mutex
	n     int
	ended chan struct{} // closed when n is 0; non-nil once somebody waits
}

// count returns h, counted. Calls that come after somebody began to wait are
// refused.
func (c *calls) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.begin() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer c.end()
		h.ServeHTTP(w, r)
	})
}

func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return false
	}
	c.n++
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.ended != nil {
		close(c.ended)
	}
}

// wait waits until all calls have ended, once, and reports whether they have
// within limit.
func (c *calls) wait(limit time.Duration) bool {
	c.mu.Lock()
	ended := make(chan struct{})
	if c.ended = ended; c.n == 0 {
		close(ended)
	}
	c.mu.Unlock()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
		return false
	}
}
