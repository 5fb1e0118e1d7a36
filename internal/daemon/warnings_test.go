package daemon

import (
	"context"
	"errors"
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

// in is a network with firewalls in the way.
type in struct {
	network.Network
	way []network.Obstacle
}

func (n in) Obstacles(context.Context) ([]network.Obstacle, error) { return n.way, nil }

// limits are there, or why not.
type limits struct {
	Limits
	err error
}

func (l limits) Err() error { return l.err }

func TestWarnings(t *testing.T) {
	got := warnings(t.Context(), Mechanisms{Names: quiet{}, Limits: limits{err: errors.New("no cgroups")}, Network: in{way: []network.Obstacle{
		{What: "chain x", Hint: "nft it"}, {What: "table y", Err: errors.New("it is odd"), Hint: "nft list it"},
	}}})
	want := []string{
		"no port 53", "machines run without limits on memory and processes: no cgroups",
		"chain x keeps machines from the network; let them through with: nft it",
		"table y may keep machines from the network: it is odd; look at it with: nft list it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("warnings = %q, want %q", got, want)
	}
}

// Who asks for the status does not wait for as long as firewalls take.
func TestWarningsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := warnings(t.Context(), Mechanisms{Names: quiet{}, Limits: limits{}, Network: busy{}})
		want := []string{"no port 53", "firewalls were not looked at: that takes longer than 1s"}
		if took := time.Since(start); took != time.Second || !slices.Equal(got, want) {
			t.Errorf("warnings = %q after %s, want %q after 1s", got, took, want)
		}
	})
}
