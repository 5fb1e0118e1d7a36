package template

import (
	"cmp"
	"slices"
	"time"
)

// PruneOptions say which templates go. Without any, the damaged ones do.
type PruneOptions struct {
	Keep      map[string]bool // IDs of those in use: they stay, whatever else holds
	UnusedFor time.Duration   // those last used longer ago than this go; 0: none for that
	MaxBytes  int64           // the least recently used go until all together take no more than this on the disk; 0: none for that
}

// Choose returns which of the templates go at the time now: damaged ones first,
// then the others, least recently used first.
func (o PruneOptions) Choose(all []Template, now time.Time) []Template {
	var total int64
	var gone, rest []Template
	for _, t := range all {
		switch {
		case o.Keep[t.ID]:
			total += t.SizeBytes
		case t.Damaged != "":
			gone = append(gone, t)
		default:
			total += t.SizeBytes
			rest = append(rest, t)
		}
	}
	slices.SortStableFunc(rest, func(a, b Template) int {
		return cmp.Or(a.LastUse().Compare(b.LastUse()), cmp.Compare(a.ID, b.ID))
	})
	for _, t := range rest {
		old := o.UnusedFor > 0 && now.Sub(t.LastUse()) > o.UnusedFor
		if large := o.MaxBytes > 0 && total > o.MaxBytes; old || large {
			gone = append(gone, t)
			total -= t.SizeBytes
		}
	}
	return gone
}
