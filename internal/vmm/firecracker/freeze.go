package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/trace"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// Where Firecracker, which has no access to where a guest is to be left, writes
// it first: in its working directory.
const (
	frozenRAM   = "frozen.ram"
	frozenState = "frozen.state"
)

// Freeze implements the method of [vmm.Machine].
func (m *machine) Freeze(ctx context.Context) error {
	to := m.spec.FreezeTo
	if to == nil {
		return errors.New("freeze: the machine was not launched to be frozen")
	}
	if err := m.freeze(ctx, *to); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return nil
}

func (m *machine) freeze(ctx context.Context, to vmm.Frozen) error {
	ram, state := filepath.Join(m.spec.Dir, frozenRAM), filepath.Join(m.spec.Dir, frozenState)
	if err := remove(ram, state); err != nil {
		return err
	}
	err := m.api.createSnapshot(ctx, snapshotCreate{Type: snapshotFull, State: frozenState, Memory: frozenRAM})
	if err != nil {
		return err
	}
	return errors.Join(vmmproc.Take(ctx, ram, to.RAM, m.spec.MemoryBytes), vmmproc.Take(ctx, state, to.State, maxState))
}

// maxState is the size in bytes of the largest state: one of a guest with four
// disks takes 30 KB.
const maxState = 64 << 20

// goOn lets the guest go on that was frozen.
func (p plan) goOn(ctx context.Context, c *client) error {
	loaded := trace.Span(ctx, trace.VMM, "load")
	defer loaded()
	if p.metrics != "" {
		if err := c.setMetrics(ctx, metricsConfig{p.metrics}); err != nil {
			return err
		}
	}
	if err := p.checkMemory(); err != nil {
		return err
	}
	load := snapshotLoad{State: p.restore.State, Memory: memoryBackend{memoryFile, p.restore.RAM}}
	for _, n := range p.nics {
		load.Overrides = append(load.Overrides, networkOverride{n.ID, n.Tap})
	}
	if err := c.loadSnapshot(ctx, load); err != nil {
		return err
	}
	for _, d := range p.drives {
		if d.ReadOnly {
			continue
		}
		// The guest knows the size of the disk of the machine that was frozen.
		if err := c.changeDrive(ctx, driveChange{d.ID, d.Path}); err != nil {
			return err
		}
	}
	loaded()
	defer trace.Span(ctx, trace.VMM, "resume")()
	return c.resume(ctx)
}

// checkMemory refuses memory of another size: beyond the end of the file a guest's
// access would kill Firecracker.
func (p plan) checkMemory() error {
	fi, err := os.Stat(p.restore.RAM)
	if err != nil {
		return err
	}
	if want := p.machine.MemoryMiB << 20; fi.Size() != want {
		return fmt.Errorf("memory to restore: %s has %d bytes, not %d", p.restore.RAM, fi.Size(), want)
	}
	return nil
}
