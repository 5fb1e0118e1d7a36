package networktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"banger/internal/network"
)

// watch watches until the test ends, and returns what is told.
func watch(t *testing.T, n network.Network) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan string, 16), make(chan error, 1)
	go func() { done <- n.Watch(ctx, func(id string) { told <- id }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch = %v, want that it was cancelled", err)
			}
		case <-time.After(limit):
			t.Error("Watch goes on after its end was asked for")
		}
	})
	return told
}

// await returns the next id that is told.
func await(t *testing.T, told <-chan string) string {
	t.Helper()
	select {
	case id := <-told:
		return id
	case <-time.After(limit):
		t.Fatal("Watch told nothing")
		return ""
	}
}

func testWatch(t *testing.T, b *bench) {
	n := b.Network(tag)
	b.apply(t, n, want(1, 2))
	b.DelLink(network.TapName(tag, id(2))) // before the watch begins
	told := watch(t, n)
	if got := await(t, told); got != id(2) {
		t.Errorf("Watch told of %s", got)
	}
	b.apply(t, n, want(1, 3))
	for range 2 { // also of one that is made again
		b.DelLink(network.TapName(tag, id(3)))
		if got := await(t, told); got != id(3) {
			t.Errorf("Watch told of %s", got)
		}
		b.apply(t, n, want(1, 3))
	}
}

// What is told comes in order, so that what should not be told would be told
// before the end.
func testWatchOwnRemovals(t *testing.T, b *bench) {
	n := b.Network(tag)
	told := watch(t, n)
	b.apply(t, n, want(1, 2))
	w := want(1, 2)
	w.Ports[0].UID = 4711
	b.apply(t, n, w) // one is replaced
	b.apply(t, n, want(2))
	b.cleanUp(t, n)
	b.apply(t, n, want(9))
	b.DelLink(network.TapName(tag, id(9)))
	if got := await(t, told); got != id(9) {
		t.Errorf("Watch told of %s", got)
	}
}
