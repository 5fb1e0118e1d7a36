package flight

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func none(string, string, int64, int64) {}

func TestDoOnce(t *testing.T) {
	var g Group[int]
	var runs, told atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	work := func(_ context.Context, p Progress) (int, error) {
		runs.Add(1)
		p("stage", "", 1, 2)
		close(started)
		<-release
		p("stage", "", 2, 2)
		return 42, nil
	}
	progress := func(string, string, int64, int64) { told.Add(1) }
	const n = 5
	var wg sync.WaitGroup
	do := func() {
		if v, err := g.Do(context.Background(), "k", progress, work); v != 42 || err != nil {
			t.Errorf("Do = %d, %v", v, err)
		}
	}
	wg.Go(do)
	<-started
	c := g.calls["k"]
	for range n - 1 {
		wg.Go(do)
	}
	waitFor(&g.mu, func() bool { return len(c.waiters) == n })
	close(release)
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("work ran %d times, want 1", runs.Load())
	}
	// Each hears of both: those who came later of the first when they come.
	if told.Load() != 2*n {
		t.Errorf("progress was told %d times, want %d", told.Load(), 2*n)
	}
	if len(g.calls) != 0 {
		t.Errorf("%d calls kept", len(g.calls))
	}
}

// The work goes on while somebody waits, and has ended when the last leaves.
func TestDoEndsWithTheLast(t *testing.T) {
	var g Group[int]
	started := make(chan struct{})
	var ended atomic.Bool
	work := func(ctx context.Context, _ Progress) (int, error) {
		close(started)
		<-ctx.Done()
		ended.Store(true)
		return 0, ctx.Err()
	}
	var ctxs [2]context.Context
	var cancels [2]context.CancelFunc
	var errs [2]chan error
	for i := range ctxs {
		ctxs[i], cancels[i] = context.WithCancel(context.Background())
		errs[i] = make(chan error, 1)
		go func() {
			_, err := g.Do(ctxs[i], "k", none, work)
			errs[i] <- err
		}()
		if i == 0 {
			<-started
		}
	}
	g.mu.Lock()
	c := g.calls["k"]
	g.mu.Unlock()
	waitFor(&g.mu, func() bool { return len(c.waiters) == 2 })
	cancels[0]()
	if err := <-errs[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("the first = %v, want canceled", err)
	}
	if ended.Load() {
		t.Error("the work ended with one still waiting")
	}
	cancels[1]()
	if err := <-errs[1]; !errors.Is(err, context.Canceled) {
		t.Errorf("the last = %v, want canceled", err)
	}
	if !ended.Load() {
		t.Error("the work goes on without anybody")
	}
}

// waitFor returns when ok, called under mu, does.
func waitFor(mu *sync.Mutex, ok func() bool) {
	for {
		mu.Lock()
		done := ok()
		mu.Unlock()
		if done {
			return
		}
	}
}
