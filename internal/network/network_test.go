package network

import (
	"net/netip"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	if got := TapName("abc123", "0123456f"); len(got) != 15 || got != "babc1230123456f" {
		t.Errorf("TapName = %q", got)
	}
	if got := BridgeName("abc123"); len(got) > 15 {
		t.Errorf("BridgeName = %q, longer than the kernel takes", got)
	}
	if mac, err := MAC("0123456f"); err != nil || mac.String() != "02:ba:01:23:45:6f" {
		t.Errorf("MAC = %v, %v", mac, err)
	}
	for _, id := range []string{"", "123", "zzzzzzzz", "0123456f00"} {
		if mac, err := MAC(id); err == nil {
			t.Errorf("MAC(%q) = %v", id, mac)
		}
	}
	if got := Gateway(netip.MustParsePrefix("10.64.4.0/22")); got.String() != "10.64.4.1" {
		t.Errorf("Gateway = %v", got)
	}
}

func TestTapID(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		ok         bool
	}{
		{"babc1230123456f", "0123456f", true},
		{"babc12301234567", "01234567", true},
		{"babc1240123456f", "", false}, // another daemon's
		{"babc1230123456", "", false},
		{"babc1230123456F", "", false}, // names are made with small letters
		{"babc123eth0eth0", "", false},
		{"banger-abc123", "", false},
		{"", "", false},
	} {
		if got, ok := TapID("abc123", tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("TapID(%q) = %q, %v", tt.name, got, ok)
		}
	}
}

func FuzzTapID(f *testing.F) {
	f.Add("babc1230123456f")
	f.Fuzz(func(t *testing.T, name string) {
		if id, ok := TapID("abc123", name); ok && TapName("abc123", id) != name {
			t.Errorf("TapID(%q) = %q, whose tap is %q", name, id, TapName("abc123", id))
		}
	})
}

func TestWantCheck(t *testing.T) {
	port := func(id, ip string) Port { return Port{ID: id, IP: netip.MustParseAddr(ip)} }
	for _, tt := range []struct {
		name   string
		subnet string
		ports  []Port
		ok     bool
	}{
		{"none", "10.64.0.0/22", nil, true},
		{"two", "10.64.0.0/22", []Port{port("0000000a", "10.64.0.2"), port("0000000b", "10.64.3.254")}, true},
		{"bits of the host", "10.64.0.1/22", nil, false},
		{"too small", "10.64.0.0/31", nil, false},
		{"IPv6", "fd00::/64", nil, false},
		{"outside", "10.64.0.0/22", []Port{port("0000000a", "10.64.4.2")}, false},
		{"gateway", "10.64.0.0/22", []Port{port("0000000a", "10.64.0.1")}, false},
		{"network", "10.64.0.0/22", []Port{port("0000000a", "10.64.0.0")}, false},
		{"broadcast", "10.64.0.0/22", []Port{port("0000000a", "10.64.3.255")}, false},
		{"one address twice", "10.64.0.0/22", []Port{port("0000000a", "10.64.0.2"), port("0000000b", "10.64.0.2")}, false},
		{"one id twice", "10.64.0.0/22", []Port{port("0000000a", "10.64.0.2"), port("0000000a", "10.64.0.3")}, false},
		{"no id", "10.64.0.0/22", []Port{port("", "10.64.0.2")}, false},
		{"odd id", "10.64.0.0/22", []Port{port("0000000A", "10.64.0.2")}, false},
	} {
		w := Want{Subnet: netip.MustParsePrefix(tt.subnet), Ports: tt.ports}
		if err := w.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: Check = %v", tt.name, err)
		}
	}
	if err := (Want{}).Check(); err == nil {
		t.Error("Check of nothing succeeded")
	}
}

// Each network is tried once, and the first depends on the tag.
func TestCandidates(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for p := range Candidates("abc123") {
		if p != p.Masked() || !p.Addr().IsPrivate() || p.Bits() != 22 || seen[p] {
			t.Fatalf("%s after %d others", p, len(seen))
		}
		seen[p] = true
	}
	if len(seen) != 4096+1024+64 {
		t.Errorf("%d candidates", len(seen))
	}
	var first []netip.Prefix
	for _, tag := range []string{"000000", "000001", "ffffff"} {
		for p := range Candidates(tag) {
			first = append(first, p)
			break
		}
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.64.0.0/22"), netip.MustParsePrefix("10.64.4.0/22"), netip.MustParsePrefix("10.127.252.0/22")}
	if !slices.Equal(first, want) {
		t.Errorf("first candidates %v, want %v", first, want)
	}
}
