// Package flight joins those who ask for the same work at the same time: it is
// done once, all hear of its progress and get its outcome, and it ends early
// only when the last of them has gone.
package flight

import (
	"context"
	"errors"
	"sync"
)

// Progress is told what is being done: stage, detail, and how much of total
// (0: not known) is done.
type Progress func(stage, detail string, done, total int64)

// A Group is a set of work under way, by key. The zero value is ready.
type Group[T any] struct {
	mu    sync.Mutex
	calls map[string]*call[T] // guarded by mu
}

type call[T any] struct {
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when value and err are set
	value   T
	err     error
	last    [2]string            // stage and detail; guarded by Group.mu
	waiters map[*waiter]Progress // guarded by Group.mu
}

type waiter struct{ _ byte } // a pointer to one is its name

// errGone is why the context of work ends that nobody waits for.
var errGone = errors.New("nobody waits for it any more")

// Do returns what work under key returns, starting it if none is under way.
// The work gets a context that has ctx's values and ends with its last waiter,
// and a Progress that every waiter hears; p must not block. When ctx ends Do
// returns its cause; who was the last waits for the work to have ended, so
// that nothing of it goes on.
func (g *Group[T]) Do(ctx context.Context, key string, p Progress, work func(context.Context, Progress) (T, error)) (T, error) {
	c, w := g.join(ctx, key, p, work)
	select {
	case <-c.done:
		g.leave(key, c, w)
		return c.value, c.err
	case <-ctx.Done():
		if g.leave(key, c, w) {
			<-c.done
		}
		var none T
		return none, context.Cause(ctx)
	}
}

func (g *Group[T]) join(ctx context.Context, key string, p Progress, work func(context.Context, Progress) (T, error)) (*call[T], *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := new(waiter)
	if c := g.calls[key]; c != nil {
		c.waiters[w] = p
		if c.last != [2]string{} {
			p(c.last[0], c.last[1], 0, 0)
		}
		return c, w
	}
	wctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &call[T]{cancel: cancel, done: make(chan struct{}), waiters: map[*waiter]Progress{w: p}}
	if g.calls == nil {
		g.calls = make(map[string]*call[T])
	}
	g.calls[key] = c
	go func() {
		defer cancel(nil)
		c.value, c.err = work(wctx, func(stage, detail string, done, total int64) { g.tell(c, stage, detail, done, total) })
		g.forget(key, c)
		close(c.done)
	}()
	return c, w
}

// leave takes a waiter away. It reports whether that was the last of work
// still under way, which is then told to end, and which nobody can join.
func (g *Group[T]) leave(key string, c *call[T], w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(c.waiters, w)
	if len(c.waiters) > 0 {
		return false
	}
	g.forgetLocked(key, c)
	c.cancel(errGone)
	return true
}

func (g *Group[T]) forget(key string, c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(key, c)
}

func (g *Group[T]) forgetLocked(key string, c *call[T]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}

func (g *Group[T]) tell(c *call[T], stage, detail string, done, total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.last = [2]string{stage, detail}
	for _, p := range c.waiters {
		p(stage, detail, done, total)
	}
}
