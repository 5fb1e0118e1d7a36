package qemu

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tscClock measures how fast the host's time stamp counter runs, against the
// host's own raw clock. The host's kernel knows too, but tells it only in its
// log, which rolls over. The guest's clock is as exact as the figure: it has
// no other clock to correct it by.
//
// The longer the time between two readings, the better: the first is taken
// when the driver is made, so the first machine hardly ever waits.
type tscClock struct {
	mu    sync.Mutex
	start tscReading // guarded by mu
	khz   uint32     // guarded by mu; not 0: settled, never measured again
}

// tscReading is one moment on both clocks.
type tscReading struct {
	ticks uint64
	ns    int64 // CLOCK_MONOTONIC_RAW
	slept int64 // ns that the host has been suspended since it booted
}

const (
	// tscShortest makes the figure good to 100 parts in a million: a
	// reading is about half a microsecond off.
	tscShortest = 5 * time.Millisecond
	// tscLong makes it as good as it needs to be.
	tscLong = time.Second
)

// TSCRate returns the rate of the host's time stamp counter in kHz, as guests
// in software are told it; 0 if it makes no sense, and about one boot in five
// hangs. It waits if the driver was made less than 5 ms ago.
func (d *Driver) TSCRate(ctx context.Context) (uint32, error) { return d.tsc.rate(ctx) }

func newTSCClock() *tscClock { return &tscClock{start: readBoth()} }

// rate returns the counter's rate in kHz, 0 if it makes no sense. It waits if
// the clock was made less than 5 ms ago. It may be called concurrently.
func (c *tscClock) rate(ctx context.Context) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.khz != 0 {
		return c.khz, nil
	}
	now := readBoth()
	if now.slept-c.start.slept > int64(time.Millisecond) {
		c.start = now // suspended in between, one of the clocks may have stood
	}
	if wait := tscShortest - time.Duration(now.ns-c.start.ns); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		now = readBoth()
	}
	khz := tscRate(c.start, now)
	if now.ns-c.start.ns >= int64(tscLong) {
		c.khz = khz
	}
	return khz, nil
}

// tscRate returns the rate between two readings in kHz, 0 if no processor has
// it: a counter that is emulated, stopped or set back.
func tscRate(a, b tscReading) uint32 {
	if b.ticks <= a.ticks || b.ns <= a.ns {
		return 0
	}
	khz := float64(b.ticks-a.ticks) / float64(b.ns-a.ns) * 1e6
	if khz < 200e3 || khz > 20e6 {
		return 0
	}
	return uint32(khz + 0.5)
}

// readBoth reads the clock between two readings of the counter, a few times,
// and keeps the time in which least came between.
func readBoth() tscReading {
	var best tscReading
	narrowest := ^uint64(0)
	for range 16 {
		before := rdtsc()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
			return tscReading{} // tscRate refuses it
		}
		after := rdtsc()
		if width := after - before; after >= before && width < narrowest {
			narrowest = width
			best = tscReading{ticks: before + width/2, ns: ts.Nano()}
		}
	}
	best.slept = timeAsleep()
	return best
}

// timeAsleep is the difference of the clock that goes on while the host is
// suspended and the one that does not, up to the time between two calls.
func timeAsleep() int64 {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return boot.Nano() - mono.Nano()
}
