package daemon

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/network"
)

// quiet are names without warnings but one.
type quiet struct{ NameServer }

func (quiet) Warnings() []string { return []string{"no port 53"} }

// busy is a network that another daemon is at work on, for good.
type busy struct{ network.Network }

func (busy) Obstacles(ctx context.Context) ([]network.Obstacle, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// Who asks for the status does not wait for as long as firewalls take.
func TestWarningsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := warnings(t.Context(), Mechanisms{Names: quiet{}, Network: busy{}})
		want := []string{"no port 53", "firewalls were not looked at: that takes longer than 1s"}
		if took := time.Since(start); took != time.Second || !slices.Equal(got, want) {
			t.Errorf("warnings = %q after %s, want %q after 1s", got, took, want)
		}
	})
}
