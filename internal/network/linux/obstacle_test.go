package linux

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// deaf returns a connection by which nothing can be read.
func deaf(t *testing.T) *conn {
	t.Helper()
	nft, err := nftables.New(nftables.WithNetNSFd(1 << 20)) // opened with each call
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{nft: nft}
	t.Cleanup(func() { _ = c.nft.CloseLasting() }) // of what came in its place
	return c
}

var filter = &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}

func forward(tab *nftables.Table, name string) *nftables.Chain {
	return &nftables.Chain{Table: tab, Name: name, Hooknum: nftables.ChainHookForward, Type: nftables.ChainTypeFilter}
}

// A firewall that cannot be read is not taken for none, is told of once, and
// leaves nothing behind in the socket.
func TestUnreadableFirewall(t *testing.T) {
	n := New(Options{Tag: "abc123", Log: slog.New(slog.DiscardHandler)})
	c := deaf(t)
	before := c.nft
	other := &nftables.Table{Family: nftables.TableFamilyINet, Name: "only output"}
	chains := []*nftables.Chain{forward(filter, "FORWARD"), forward(filter, "FORWARD2"), {Table: other, Name: "out"}}
	found, err := n.examine(t.Context(), c, []*nftables.Table{filter, other}, chains, nil)
	if err != nil || len(found) != 1 || found[0].What != "table ip filter" || found[0].Err == nil || found[0].Hint != "nft list table ip filter" {
		t.Errorf("examine = %v, %v, want that table ip filter cannot be read", found, err)
	}
	if c.nft == before {
		t.Error("the socket is used on")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if found, err := n.examine(ctx, deaf(t), []*nftables.Table{filter}, chains, nil); !errors.Is(err, enough) {
		t.Errorf("examine, cancelled = %v, %v", found, err)
	}
}

// A set that cannot be read spoils what the rules seem to say.
func TestUnreadableSet(t *testing.T) {
	unreadable := errors.New("unreadable")
	w := &walk{rules: map[string][]*nftables.Rule{
		"base": chainOf(cat(words{&expr.Lookup{SourceRegister: reg, SetName: "s"}}, drop()), accept()),
	}}
	asked := 0
	w.set = func(string) (set, bool, error) { asked++; return nil, false, unreadable }
	if why := w.drops(forward(filter, "base"), []probe{leaving, leaving}); !errors.Is(w.err, unreadable) || asked != 1 {
		t.Errorf("drops = %q, error %v after %d questions", why, w.err, asked)
	}
}

// Docker's chain is no reason not to go on; what a failure left in the socket
// is.
func TestDockerUnreadable(t *testing.T) {
	n := New(Options{Tag: "abc123", Log: slog.New(slog.DiscardHandler)})
	c := deaf(t)
	before := c.nft
	if err := n.openDockerUser(c, &tables{all: []*nftables.Table{filter}}); err != nil {
		t.Errorf("openDockerUser = %v", err)
	}
	if c.nft == before {
		t.Error("the socket is used on")
	}
}
