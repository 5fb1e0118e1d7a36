package lifecycle_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/network/networktest"
	"banger/internal/vm"
)

// A host whose network cannot be had harms no machine that has none, and those
// that have one come to rest when it can be had again.
func TestNetworkFails(t *testing.T) {
	l := newLife(t)
	ctx := context.Background()
	alone, err := l.Create(ctx, lifecycle.Request{Name: "alone", Spec: vm.Spec{Network: network.None}}, nobody)
	if err != nil {
		t.Fatal(err)
	}
	web := l.create("web", false)
	mustStart(t, l, alone)
	mustStart(t, l, web)
	l.w.SetFail(func(op string) error {
		if strings.HasSuffix(op, "network") {
			return errBoom
		}
		return nil
	})
	if v, err := l.Stop(ctx, alone.ID, time.Second); err != nil || v.State != vm.Stopped {
		t.Errorf("without a network: Stop = %s, %v", v.State, err)
	}
	if _, err := l.Delete(ctx, alone.ID); err != nil {
		t.Errorf("without a network: Delete = %v", err)
	}
	if v, err := l.Stop(ctx, web.ID, time.Second); err == nil || v.State != vm.Faulty {
		t.Errorf("with one: Stop = %s, %v", v.State, err)
	}
	l.w.SetFail(nil)
	if v, err := l.Stop(ctx, web.ID, time.Second); err != nil || v.State != vm.Stopped {
		t.Errorf("tried again: Stop = %s, %v", v.State, err)
	}
	l.agrees("in the end", web)
	if _, err := l.Delete(ctx, web.ID); err != nil {
		t.Error(err)
	}
	nothingLeft(t, l)
}

// Names are answered while the host's network is at work.
func TestNamesDoNotWait(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	ip := netip.MustParseAddr(l.record(v.ID).GuestIP)
	l.w.SetFail(func(op string) error {
		if op == "before network" {
			if a, ok := l.Lookup(context.Background(), "web"); !ok || a != ip {
				t.Errorf("Lookup = %s, %t", a, ok)
			}
			if name, ok := l.Reverse(context.Background(), ip); !ok || name != "web" {
				t.Errorf("Reverse = %q, %t", name, ok)
			}
		}
		return nil
	})
	mustStart(t, l, l.create("db", false))
	l.w.SetFail(nil)
	if a, ok := l.Lookup(context.Background(), "nobody"); ok {
		t.Errorf("Lookup of nobody = %s", a)
	}
}

// A tap that was deleted while no daemon looked is told of by the next.
func TestTapLostUnseen(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	mustStart(t, l, v)
	l.close()
	l.w.Net.DelLink(network.TapName(l.paths.Tag, string(v.ID)))
	l.open()
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(5 * time.Second)
	for !strings.Contains(l.record(v.ID).StateReason, "tap was deleted") {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("the record says %q", l.record(v.ID).StateReason)
		}
	}
}

// Who leased a machine does not wait until its tap is gone; it goes all the same,
// also if that fails at first.
func TestLeasedTapGoes(t *testing.T) {
	for name, fails := range map[string]error{"at once": nil, "at the second try": errBoom} {
		l := newLife(t)
		v := l.create("web", true)
		mustStart(t, l, v)
		began, goOn := make(chan struct{}), make(chan struct{})
		l.w.SetFail(once("before undo network", func() error { close(began); <-goOn; return fails }))
		if _, err := l.Delete(context.Background(), v.ID); err != nil {
			t.Fatalf("%s: Delete = %v", name, err)
		}
		<-began
		if len(l.w.Net.Links()) == 0 {
			t.Errorf("%s: what is being removed is gone", name)
		}
		close(goOn)
		deadline := time.After(10 * time.Second)
		for len(l.w.Net.Links()) > 0 {
			l.KeepNetwork(context.Background())
			select {
			case <-time.After(time.Millisecond):
			case <-deadline:
				t.Fatalf("%s: there are links %v", name, l.w.Net.Links())
			}
		}
		l.w.SetFail(nil)
		nothingLeft(t, l)
	}
}

// A leased machine that could not be restored boots with its network: what undoes
// the first try, in the background, does not take it from the second.
func TestLeasedKeepsTapOfSecondTry(t *testing.T) {
	l := newWarm(t)
	l.makeTemplate()
	for range 20 {
		v, err := l.Create(context.Background(), lifecycle.Request{Name: "web", Spec: small, Ephemeral: true}, nobody)
		if err != nil {
			t.Fatal(err)
		}
		l.w.SetFail(once("before launch", func() error { return syscall.ENOSPC })) // blames no template
		mustStart(t, l, v)
		l.w.SetFail(nil)
		l.KeepNetwork(context.Background()) // behind what is undone
		tap := network.TapName(l.paths.Tag, string(v.ID))
		if !slices.ContainsFunc(l.w.Net.Links(), func(k networktest.Link) bool { return k.Name == tap }) {
			t.Fatalf("it has no tap %s; there are %v", tap, l.w.Net.Links())
		}
		if _, err := l.Delete(context.Background(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// A daemon that stops leaves no tap of a machine that was leased.
func TestLeasedTapGoesWithTheDaemon(t *testing.T) {
	l := newLife(t)
	v := l.create("web", true)
	mustStart(t, l, v)
	if _, err := l.Delete(context.Background(), v.ID); err != nil {
		t.Fatal(err)
	}
	l.Manager.Close()
	if links := l.w.Net.Links(); len(links) > 0 {
		t.Errorf("there are links %v", links)
	}
}
