package config

import (
	"net/netip"

	"banger/internal/errkind"
)

// Subnet is an IP network, written as in "10.77.0.0/22"; the zero value is
// none.
type Subnet struct{ netip.Prefix }

// UnmarshalText reads a network, or nothing. What is neither is an error of kind
// [errkind.Usage].
func (s *Subnet) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = Subnet{}
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return errkind.New(errkind.Usage, "%q is no subnet: write a network and its bits, as in 10.77.0.0/22", text)
	}
	s.Prefix = p
	return nil
}

// MarshalText writes what UnmarshalText reads, and nothing for none.
func (s Subnet) MarshalText() ([]byte, error) {
	if !s.IsValid() {
		return []byte{}, nil
	}
	return []byte(s.String()), nil
}
