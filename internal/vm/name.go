package vm

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"banger/internal/errkind"
)

// ID names a machine for as long as it exists: eight lower-case hexadecimal
// digits, unique in one store. Every name a machine has on the host is derived
// from it, so leftovers can be found without a record.
type ID string

// NewID returns a random ID. The store says whether it was free.
func NewID() ID {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return ID(hex.EncodeToString(b[:]))
}

// Valid reports whether id has the form of an ID.
func (id ID) Valid() bool {
	return len(id) == 8 && strings.Trim(string(id), "0123456789abcdef") == ""
}

// MaxName is the length of the longest name of a machine in bytes: that of a
// DNS label (RFC 1035, section 2.3.4).
const MaxName = 63

// CheckName returns an error of kind [errkind.Usage] unless name is a DNS
// label: 1 to 63 lower-case letters, digits and inner hyphens (RFC 1123,
// section 2.1, without capitals). Nothing is ever rewritten to fit.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxName && name[0] != '-' && name[len(name)-1] != '-'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z'
	}
	if !ok {
		return errkind.New(errkind.Usage, "%q is no name for a machine: it takes 1 to 63 lower-case letters, digits and inner hyphens", name)
	}
	return nil
}
