package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// diskWait is how long the disks may take to appear. The kernel has mostly
// found them by the time that the modules are loaded.
const diskWait = 10 * time.Second

// A disks finds block devices by the serial that the host gave them: the order
// of /dev/vd* may vary from boot to boot. Where the VMM gives none, they are
// found by their places on the virtio bus, which are those of the VMM's list.
type disks struct {
	sys     string // /sys/block
	changed func(context.Context) error
}

// find returns the device node of a mount's disk. It waits for the kernel to
// announce one as long as ctx allows.
func (d disks) find(ctx context.Context, m wire.Mount) (string, error) {
	look := func() (string, []string, error) { return d.look(m.Serial) }
	if m.Position > 0 {
		look = func() (string, []string, error) { return d.lookAt(m.Position) }
	}
	for {
		name, seen, err := look()
		if err != nil || name != "" {
			return "/dev/" + name, err
		}
		if err := d.changed(ctx); err != nil {
			return "", fmt.Errorf("find disk %s among [%s]: %w", m.Serial, strings.Join(seen, " "), err)
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

// lookAt looks once for the disk at a position, from 1 on, and returns the
// disks that it saw.
func (d disks) lookAt(position int) (name string, seen []string, err error) {
	links, err := filepath.Glob(filepath.Join(d.sys, "vd*", "device"))
	if err != nil {
		return "", nil, fmt.Errorf("list disks: %w", err)
	}
	type disk struct {
		bus  int // its number on the virtio bus
		name string
	}
	var found []disk
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue // it has gone
		}
		bus, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(target), "virtio"))
		if err != nil {
			continue // on another bus
		}
		found = append(found, disk{bus, filepath.Base(filepath.Dir(link))})
	}
	slices.SortFunc(found, func(a, b disk) int { return cmp.Compare(a.bus, b.bus) })
	for _, f := range found {
		seen = append(seen, f.name)
	}
	if position > len(found) {
		return "", seen, nil
	}
	return found[position-1].name, seen, nil
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
