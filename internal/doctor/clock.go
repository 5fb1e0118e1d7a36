package doctor

import (
	"context"
	"time"
)

// behind is how far a clock may be behind the day that this program was built
// on: so far that signatures and certificates of then are not valid yet.
const behind = 365 * 24 * time.Hour

func (e *examination) clock(ctx context.Context) {
	c := e.Host.Clock
	sync := "apt-get install -y chrony"
	if c.Service {
		sync = "timedatectl set-ntp true"
	}
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	switch {
	case !e.Built.IsZero() && e.Built.Sub(c.Now) > behind:
		e.fail("clock", []string{"date -u --set=" + e.Built.UTC().Format(time.RFC3339), sync},
			"it says %s, and this program was built on %s: what is signed now is not valid then", day(c.Now), day(e.Built))
	case e.inSoftware && e.tscUnknown(ctx):
		e.warn("clock", nil, "the rate of the processor's time stamp counter cannot be measured: guests in software may hang when they boot")
	case c.Err != nil:
		e.ok("clock", "it says %s; whether it is synchronised cannot be told (%v)", day(c.Now), c.Err)
	case !c.Synced:
		e.warn("clock", []string{sync}, "it says %s, and is not synchronised: guests get what it says", day(c.Now))
	default:
		e.ok("clock", "it is synchronised")
	}
}

// tscUnknown reports whether guests' kernels have to find out by themselves.
func (e *examination) tscUnknown(ctx context.Context) bool {
	khz, err := e.TSCRate(ctx)
	return err != nil || khz == 0
}
