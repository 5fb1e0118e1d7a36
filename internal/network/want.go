package network

import (
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
)

// Check returns an error if w cannot be made: its subnet is no IPv4 network of
// at least two hosts, or a port has no id, or an address that is not a host's
// in the subnet or is another port's.
func (w Want) Check() error {
	s := w.Subnet
	if !s.IsValid() || !s.Addr().Is4() || s != s.Masked() || s.Bits() > 30 {
		return fmt.Errorf("subnet %s: want an IPv4 network of /30 or larger", s)
	}
	ids, ips := map[string]bool{}, map[netip.Addr]bool{Gateway(s): true, s.Addr(): true, broadcast(s): true}
	for _, p := range w.Ports {
		if !validID(p.ID) || ids[p.ID] {
			return fmt.Errorf("port %q: want 8 hexadecimal digits that no other port has", p.ID)
		}
		if !s.Contains(p.IP) || ips[p.IP] {
			return fmt.Errorf("port %s: address %s is not free in %s", p.ID, p.IP, s)
		}
		ids[p.ID], ips[p.IP] = true, true
	}
	return nil
}

// Candidates yields the subnets that a daemon with a tag may take, in the order
// in which they are tried: /22 networks (1021 machines) of the private ranges
// (RFC 1918), first those of 10.64.0.0/10, which few sites use. Where it starts
// in a range depends on the tag, so that daemons seldom meet.
func Candidates(tag string) iter.Seq[netip.Prefix] {
	const bits = 22
	n, err := strconv.ParseUint(tag, 16, 32)
	if err != nil {
		panic("internal error: tag " + strconv.Quote(tag))
	}
	return func(yield func(netip.Prefix) bool) {
		for _, r := range []string{"10.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"} {
			within := netip.MustParsePrefix(r)
			count := uint32(1) << (bits - within.Bits())
			for i := range count {
				at := (uint32(n) + i) % count
				if !yield(netip.PrefixFrom(addr(number(within.Addr())+at<<(32-bits)), bits)) {
					return
				}
			}
		}
	}
}

// TapID is the machine whose tap of the daemon with a tag has a name. ok is
// false if no machine's has.
func TapID(tag, name string) (id string, ok bool) {
	prefix := TapName(tag, "")
	if len(name) != len(prefix)+8 || name[:len(prefix)] != prefix || !validID(name[len(prefix):]) {
		return "", false
	}
	return name[len(prefix):], true
}

// validID reports whether id is 8 hexadecimal digits, the letters small.
func validID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 4 && hex.EncodeToString(b) == id
}

func broadcast(s netip.Prefix) netip.Addr {
	return addr(number(s.Addr()) | (1<<(32-s.Bits()) - 1))
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
