package dmsnap

import (
	"context"
	"fmt"

	"banger/internal/disk"
	"banger/internal/errkind"
)

// Usage returns how many bytes of an attached layer's COW are in use, metadata
// included, and how many it could come to be. It is an error if the layer is
// not attached, and if the kernel has given the snapshot up.
func (ls *Layers) Usage(_ context.Context, l disk.Layer) (used, total int64, err error) {
	_, status, err := dmTable(ls.name(l), true)
	switch {
	case noDevice(err):
		return 0, 0, errkind.New(errkind.Conflict, "root disk of %s is not attached", l.ID)
	case err != nil:
		return 0, 0, fmt.Errorf("look at device %s: %w", ls.name(l), hostError(err))
	case len(status) != 1 || status[0].kind != "snapshot":
		return 0, 0, fmt.Errorf("device %s is no snapshot", ls.name(l))
	}
	if used, total, err = parseUsage(status[0].params); err != nil {
		return 0, 0, fmt.Errorf("root disk of %s: %w", l.ID, err)
	}
	return used, total, nil
}
