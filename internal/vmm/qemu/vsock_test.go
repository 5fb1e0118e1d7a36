package qemu

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// An address that somebody has is survived by taking another.
func TestClaimCID(t *testing.T) {
	for name, tt := range map[string]struct {
		taken int   // how many of those tried are
		err   error // of the others
		tries int
		want  error
	}{
		"free":      {0, nil, 1, nil},
		"taken":     {2, nil, 3, nil},
		"all taken": {1 << 30, nil, spareTries + 1, unix.EADDRINUSE},
		"refused":   {0, unix.EINVAL, 1, unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			var tried []uint32
			got, err := claimCID(7000, func(cid uint32) error {
				tried = append(tried, cid)
				if len(tried) <= tt.taken {
					return unix.EADDRINUSE
				}
				return tt.err
			})
			if !errors.Is(err, tt.want) || len(tried) != tt.tries {
				t.Fatalf("claimCID = %d, %v after %d tries", got, err, len(tried))
			}
			if tried[0] != 7000 || err == nil && got != tried[len(tried)-1] {
				t.Errorf("claimCID = %d, tried %d", got, tried)
			}
			for _, cid := range tried[1:] {
				if cid < firstSpareCID || cid > lastSpareCID {
					t.Errorf("tried %d, which is none of the spare ones", cid)
				}
			}
		})
	}
}
