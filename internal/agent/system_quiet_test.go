package agent

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestAwaitQuiet(t *testing.T) {
	for name, c := range map[string]struct {
		busy []uint64 // of a hundred ticks of each poll, the last ever after
		want time.Duration
	}{
		"quiet":         {[]uint64{0}, quietFor},
		"little":        {[]uint64{100 / quietShare}, quietFor},
		"works first":   {[]uint64{90, 80, 0}, 2*quietPoll + quietFor},
		"works between": {[]uint64{0, 0, 0, 50, 0}, 4*quietPoll + quietFor},
		"always works":  {[]uint64{0, 50}, quietWait},
	} {
		var w workTime
		read := func() (workTime, error) { return w, nil }
		var waited time.Duration
		wait := func(_ context.Context, d time.Duration) error {
			waited += d
			w.all += 100
			w.busy += c.busy[0]
			if len(c.busy) > 1 {
				c.busy = c.busy[1:]
			}
			return nil
		}
		if err := awaitQuiet(t.Context(), read, wait); err != nil || waited != c.want {
			t.Errorf("%s: waited %v (%v), want %v", name, waited, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := awaitQuiet(ctx, procWork, pause); !errors.Is(err, context.Canceled) {
		t.Errorf("awaitQuiet = %v", err)
	}
}

func TestParseWork(t *testing.T) {
	w, err := parseWork([]byte("cpu  1 2 3 100 50 4 5 6 1000 1000\ncpu0 9 9 9 9 9 9 9 9 9 9\n"))
	if want := (workTime{busy: 21, all: 171}); err != nil || w != want {
		t.Errorf("parseWork = %v, %v, want %v", w, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6", "cpu 1 2 3 x 5 6"} {
		if _, err := parseWork([]byte(bad)); err == nil {
			t.Errorf("parseWork(%q) succeeded", bad)
		}
	}
}
