package store

import (
	"net/netip"
	"testing"

	"banger/internal/errkind"
	"banger/internal/vm"
)

func networked(name string) vm.VM {
	v := machine(name)
	v.Spec.Network = "nat"
	return v
}

func TestAddresses(t *testing.T) {
	s := newStore(t, options())
	if p, err := s.Subnet(t.Context()); err != nil || p.IsValid() {
		t.Errorf("Subnet before one was set = %s, %v", p, err)
	}
	if v, err := s.Create(t.Context(), networked("early")); err == nil {
		t.Errorf("without a subnet, Create gives address %q", v.GuestIP)
	}
	set := func(text string) {
		t.Helper()
		if err := s.SetSubnet(t.Context(), netip.MustParsePrefix(text)); err != nil {
			t.Fatal(err)
		}
	}
	set("10.1.2.5/24")
	a, b := mustCreate(t, s, networked("a")), mustCreate(t, s, networked("b"))
	if a.GuestIP != "10.1.2.2" || b.GuestIP != "10.1.2.3" {
		t.Errorf("addresses %s and %s", a.GuestIP, b.GuestIP)
	}
	// One that has just become free is not given out at once.
	if err := s.Delete(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	if c := mustCreate(t, s, networked("c")); c.GuestIP != "10.1.2.4" {
		t.Errorf("the next address is %s", c.GuestIP)
	}
	// The host parts stay, where they fit.
	set("172.16.0.0/22")
	if v, err := s.Get(t.Context(), b.ID); err != nil || v.GuestIP != "172.16.0.3" {
		t.Errorf("moved to %s, %v", v.GuestIP, err)
	}
	for _, bad := range []string{"10.0.0.0/31", "fd00::/64", "10.0.0.0/30", "0.0.0.0/0"} {
		fails(t, s.SetSubnet(t.Context(), netip.MustParsePrefix(bad)), errkind.Usage, bad)
	}
}

// A machine whose address does not fit into a smaller subnet gets another, and
// one for which there is no room keeps everything as it was.
func TestSmallerSubnet(t *testing.T) {
	s := newStore(t, options())
	if err := s.SetSubnet(t.Context(), netip.MustParsePrefix("10.1.0.0/24")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		mustCreate(t, s, networked(name))
	}
	small := netip.MustParsePrefix("10.2.0.0/29")
	fails(t, s.SetSubnet(t.Context(), small), errkind.Host, "10.2.0.0/29")
	if p, err := s.Subnet(t.Context()); err != nil || p.String() != "10.1.0.0/24" {
		t.Errorf("after a failure: %s, %v", p, err)
	}
	a, err := s.Resolve(t.Context(), "a")
	if err != nil || a.GuestIP != "10.1.0.2" {
		t.Fatalf("after a failure: %s, %v", a.GuestIP, err)
	}
	if err := s.Delete(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSubnet(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Resolve(t.Context(), "f"); err != nil || f.GuestIP != "10.2.0.2" {
		t.Errorf("f moved to %s, %v", f.GuestIP, err)
	}
	// The others keep their part, whoever was given a new one before them.
	for name, want := range map[string]string{"b": "10.2.0.3", "e": "10.2.0.6"} {
		if v, err := s.Resolve(t.Context(), name); err != nil || v.GuestIP != want {
			t.Errorf("%s moved to %s, %v, want %s", name, v.GuestIP, err, want)
		}
	}
}
