package lifecycle_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// A VMM that does not answer is told of, and nothing waits for its guest.
func TestSilentVMM(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	lines, stop := l.Notices(v.ID)
	defer stop()
	l.w.SetFail(func(op string) error {
		if op == "before status" {
			return errBoom
		}
		return nil
	})
	l.told(lines, `the VMM of machine "web" does not answer`)
	if _, err := l.Agent(context.Background(), v.ID); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Agent = %v", err)
	}
	l.w.SetFail(nil)
	l.told(lines, "answers again")
	if _, err := l.Agent(context.Background(), v.ID); err != nil {
		t.Errorf("Agent = %v", err)
	}
}

// told waits for a line about a machine, and has the manager ask meanwhile.
func (l *life) told(lines <-chan string, want string) {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		l.AskWhoAnswers()
		select {
		case line := <-lines:
			if !strings.Contains(line, want) {
				l.t.Errorf("told %q, want %q", line, want)
			}
			return
		case <-tick.C:
		case <-deadline:
			l.t.Fatalf("not told %q", want)
		}
	}
}

// An agent that does not answer is told of to who waits for it, others are
// refused, and it is reached again once it answers.
func TestSilentAgent(t *testing.T) {
	l := newLife(t)
	l.SetPatience(100*time.Millisecond, time.Hour)
	v := l.create("web", false)
	mustStart(t, l, v)
	before, err := l.Agent(context.Background(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	lines, stop := l.Notices(v.ID)
	defer stop()
	l.w.Silent.Store(true)
	l.told(lines, `the agent of machine "web" does not answer`)
	if _, err := l.Agent(context.Background(), v.ID); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Agent = %v", err)
	}
	l.w.Silent.Store(false)
	l.told(lines, "answers again")
	if after, err := l.Agent(context.Background(), v.ID); err != nil || after != before {
		t.Errorf("Agent = another one (%t), %v", after != before, err)
	}
}

// An agent that is silent for long is given up: who waited for it is told, and
// the next call finds who answers in its place.
func TestAgentGivenUp(t *testing.T) {
	l := newLife(t)
	l.SetPatience(100*time.Millisecond, 200*time.Millisecond)
	v := l.create("web", false)
	mustStart(t, l, v)
	before, err := l.Agent(context.Background(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	lines, stop := l.Notices(v.ID)
	defer stop()
	l.w.Silent.Store(true)
	l.told(lines, "does not answer")
	call := make(chan error, 1)
	go func() {
		_, err := before.Info(context.Background(), connect.NewRequest(&wire.InfoRequest{}))
		call <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ended := false; !ended; {
		l.AskWhoAnswers()
		select {
		case err := <-call:
			if ended = true; err == nil {
				t.Error("a silent agent answered")
			}
		case <-tick.C:
		}
	}
	l.w.Silent.Store(false)
	if after, err := l.Agent(context.Background(), v.ID); err != nil || after == before {
		t.Errorf("Agent = the same one (%t), %v", after == before, err)
	}
}

// An agent that nobody waits for is left in peace.
func TestAgentInPeace(t *testing.T) {
	l := newLife(t)
	l.SetPatience(time.Millisecond, time.Millisecond)
	v := l.create("web", false)
	mustStart(t, l, v)
	before, err := l.Agent(context.Background(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	l.w.Silent.Store(true)
	defer l.w.Silent.Store(false)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(200 * time.Millisecond); ; {
		l.AskWhoAnswers()
		after, err := l.Agent(context.Background(), v.ID)
		// On a busy host the VMM, too, takes over a millisecond.
		busy := err != nil && strings.Contains(err.Error(), "the VMM")
		if !busy && (err != nil || after != before) {
			t.Fatalf("Agent = another one (%t), %v", after != before, err)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}
