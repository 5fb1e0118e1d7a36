package qemu

import (
	"context"
	"errors"
	"runtime"
	"testing"
)

func TestTSCRateOfTwoReadings(t *testing.T) {
	tests := []struct {
		name string
		a, b tscReading
		want uint32
	}{
		{"2.6 GHz", tscReading{ticks: 1000, ns: 0}, tscReading{ticks: 1000 + 2_596_124_000, ns: 1e9}, 2_596_124},
		{"set back", tscReading{ticks: 5000, ns: 0}, tscReading{ticks: 1000, ns: 1e9}, 0},
		{"stopped", tscReading{ticks: 5000, ns: 0}, tscReading{ticks: 5000, ns: 1e9}, 0},
		{"no time between", tscReading{ticks: 0, ns: 7}, tscReading{ticks: 1 << 40, ns: 7}, 0},
		{"too slow", tscReading{ticks: 0, ns: 0}, tscReading{ticks: 1000, ns: 1e9}, 0},
		{"too fast", tscReading{ticks: 0, ns: 0}, tscReading{ticks: 1 << 60, ns: 1e9}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tscRate(tt.a, tt.b); got != tt.want {
				t.Errorf("tscRate = %d kHz, want %d", got, tt.want)
			}
		})
	}
}

// Two clocks of one host agree to a part in a thousand, at worst.
func TestTSCRate(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("no time stamp counter on " + runtime.GOARCH)
	}
	a, err := newTSCClock().rate(t.Context())
	if err != nil || a == 0 {
		t.Fatalf("rate = %d, %v", a, err)
	}
	b, err := newTSCClock().rate(t.Context())
	if err != nil || b == 0 {
		t.Fatalf("rate = %d, %v", b, err)
	}
	if d := int64(a) - int64(b); d > int64(a)/1000 || -d > int64(a)/1000 {
		t.Errorf("rate = %d, then %d kHz", a, b)
	}
	t.Logf("%d and %d kHz", a, b)
}

func TestTSCRateCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newTSCClock().rate(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("rate = %v, want that it was cancelled", err)
	}
}
