package network

import (
	"net/netip"
	"testing"
)

func TestNames(t *testing.T) {
	if n := TapName("a1b2c3", "0f1e2d3c"); n != "ba1b2c30f1e2d3c" || len(n) != 15 {
		t.Errorf("TapName = %q", n)
	}
	if n := BridgeName("a1b2c3"); len(n) > 15 {
		t.Errorf("BridgeName = %q", n)
	}
	if a := Gateway(netip.MustParsePrefix("10.9.8.0/22")); a != netip.MustParseAddr("10.9.8.1") {
		t.Errorf("Gateway = %s", a)
	}
}

func TestMAC(t *testing.T) {
	a, err := MAC("0f1e2d3c")
	if err != nil || a.String() != "02:ba:0f:1e:2d:3c" {
		t.Errorf("MAC = %s, %v", a, err)
	}
	for _, id := range []string{"", "0f1e2d3", "0f1e2d3c4d", "zzzzzzzz"} {
		if a, err := MAC(id); err == nil {
			t.Errorf("MAC(%q) = %s", id, a)
		}
	}
}
