package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskWait is how long the disks may take to appear. The kernel has mostly
// found them by the time that the modules are loaded.
const diskWait = 10 * time.Second

// A disks finds block devices by the serial that the host gave them: the order
// of /dev/vd* may vary from boot to boot.
type disks struct {
	sys     string // /sys/block
	changed func(context.Context) error
}

// find returns the device node of the disk with a serial. It waits for the
// kernel to announce one as long as ctx allows.
func (d disks) find(ctx context.Context, serial string) (string, error) {
	for {
		name, seen, err := d.look(serial)
		if err != nil || name != "" {
			return "/dev/" + name, err
		}
		if err := d.changed(ctx); err != nil {
			return "", fmt.Errorf("find disk %s among [%s]: %w", serial, strings.Join(seen, " "), err)
		}
	}
}

// look looks once, and returns the serials that it saw.
func (d disks) look(serial string) (name string, seen []string, err error) {
	entries, err := os.ReadDir(d.sys)
	if err != nil {
		return "", nil, fmt.Errorf("list disks: %w", err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(d.sys, e.Name(), "serial"))
		if err != nil {
			continue // not every block device has one, and any may go
		}
		have := strings.TrimSpace(string(data))
		if have == serial {
			return e.Name(), seen, nil
		}
		seen = append(seen, have)
	}
	return "", seen, nil
}

// A deviceEvents waits for the kernel to announce devices.
type deviceEvents struct{ f *os.File }

// wait returns when something has been announced since the last call, or when
// the deadline of ctx has passed.
func (e deviceEvents) wait(ctx context.Context) error {
	deadline, _ := ctx.Deadline() // none: the zero time, which is none
	if err := e.f.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for devices: %w", err)
	}
	// One message is enough: the caller looks at everything anew. That some
	// were lost (ENOBUFS) is news too.
	_, err := e.f.Read(make([]byte, 8<<10))
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("wait for devices: %w", err)
	}
	return nil
}
