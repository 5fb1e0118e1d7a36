package networktest

import (
	"errors"
	"slices"
	"testing"

	"banger/internal/network"
)

func TestNetworkSuiteFake(t *testing.T) {
	Run(t, func(t *testing.T) Harness {
		h := NewHost()
		return Harness{
			Network: h.Network, Links: h.Links, Tables: h.Tables,
			AddLink: h.AddLink, AddTable: h.AddTable, AddRoute: h.AddRoute,
			DelLink: func(name string) {
				if !h.DelLink(name) {
					t.Errorf("there is no link %s", name)
				}
			},
		}
	})
}

// A fault comes before or after the effect, as it was asked for.
func TestFaults(t *testing.T) {
	h := NewHost()
	n := h.Network(tag)
	boom := errors.New("boom")
	for _, tt := range []struct {
		point string
		links int // that there are afterwards
		do    func() error
	}{
		{"before network", 0, func() error { return n.Apply(t.Context(), want(1)) }},
		{"after network", 2, func() error { return n.Apply(t.Context(), want(1)) }},
		{"before network", 2, func() error { return n.Apply(t.Context(), want(1, 2)) }},
		{"after network", 3, func() error { return n.Apply(t.Context(), want(1, 2)) }},
		{"before undo network", 3, func() error { return n.Apply(t.Context(), want(1)) }},
		{"after undo network", 2, func() error { return n.Apply(t.Context(), want(1)) }},
		{"before undo network", 2, func() error { return n.CleanUp(t.Context()) }},
		{"after undo network", 0, func() error { return n.CleanUp(t.Context()) }},
	} {
		h.SetFail(func(p string) error {
			if p == tt.point {
				return boom
			}
			return nil
		})
		if err := tt.do(); !errors.Is(err, boom) {
			t.Errorf("%s: %v", tt.point, err)
		}
		if links := h.Links(); len(links) != tt.links {
			t.Errorf("%s: the host has %v, want %d links", tt.point, links, tt.links)
		}
	}

	h.SetFail(func(p string) error { t.Errorf("%s was asked of what changes nothing", p); return nil })
	if err := n.CleanUp(t.Context()); err != nil {
		t.Error(err)
	}
	h.SetFail(nil)
	if err := n.Apply(t.Context(), want(1)); err != nil {
		t.Error(err)
	}
	h.SetFail(func(p string) error { t.Errorf("%s was asked of what changes nothing", p); return nil })
	if err := n.Apply(t.Context(), want(1)); err != nil {
		t.Error(err)
	}
}

func TestObstacles(t *testing.T) {
	h := NewHost()
	o := []network.Obstacle{{What: "table ip filter, chain FORWARD (policy drop)", Hint: "nft …"}}
	h.SetObstacles(o)
	if got, err := h.Network(tag).Obstacles(t.Context()); err != nil || !slices.Equal(got, o) {
		t.Errorf("Obstacles = %v, %v", got, err)
	}
}
