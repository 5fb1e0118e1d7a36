package lifecycle_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banger/internal/lifecycle"
	"banger/internal/network"
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
