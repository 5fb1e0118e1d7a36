package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"banger/internal/errkind"
)

// MinFree is how much room the host's file system must have left for a machine
// to be made on it, in bytes: enough for its boot to write what it writes.
const MinFree = 256 << 20

// Size is a number of bytes, written as in "512M" or "8G".
type Size int64

var units = []struct {
	suffix string
	bytes  int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// ParseSize reads a whole number of bytes with an optional unit: K, M, G or T,
// powers of 1024, also written as KB or KiB, in either case. A size that is
// zero, negative or over 2⁶³-1 is an error of kind [errkind.Usage].
func ParseSize(s string) (Size, error) {
	bad := errkind.New(errkind.Usage, "%q is no size: write a number above zero and a unit, as in 512M or 8G", s)
	num := strings.ToUpper(strings.TrimSpace(s))
	num = strings.TrimSuffix(strings.TrimSuffix(num, "B"), "I")
	factor := int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(num, u.suffix); ok {
			num, factor = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(num, 10, 63)
	if err != nil || n == 0 || int64(n) > math.MaxInt64/factor {
		return 0, bad
	}
	return Size(int64(n) * factor), nil
}

// String writes s in the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && int64(s)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s)/u.bytes, u.suffix)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText reads a size as [ParseSize] does, and "0", which some keys take
// for no limit.
func (s *Size) UnmarshalText(text []byte) (err error) {
	if string(text) == "0" {
		*s = 0
		return nil
	}
	*s, err = ParseSize(string(text))
	return err
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
