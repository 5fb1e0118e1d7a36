package dmsnap

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// Check reports what the host lacks for layers of this kind, or nil. A module
// that is not loaded is loaded by that, where the host does so by itself.
func (ls *Layers) Check(context.Context) error {
	if os.Geteuid() != 0 {
		return nil // others may not look; the daemon is root
	}
	if _, err := dmCall(unix.DM_VERSION, "", 0, 0, nil); err != nil {
		return hostError(err)
	}
	// The kernel takes a kind of target in the place of a name. It knows this
	// request since 5.4, and does not need it.
	_, err := dmCall(unix.DM_GET_TARGET_VERSION, "snapshot", 0, 0, nil)
	if err != nil && !errors.Is(err, unix.ENOTTY) {
		return errkind.WithHint(errkind.New(errkind.Host, "the host's device-mapper has no snapshots: %w", err), "modprobe dm_snapshot")
	}
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return errkind.WithHint(errkind.New(errkind.Host, "the host has no loop devices: %w", err), "modprobe loop")
	}
	return f.Close()
}
