package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"banger/internal/trace"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

const (
	// stateFD is what QEMU calls the file of a guest's state.
	stateFD = "state"
	// statePoll is how often QEMU is asked whether a state is written or read.
	statePoll = time.Millisecond
	// maxState is the size in bytes of the largest state: one of a guest with four
	// disks takes 70 KB.
	maxState = 64 << 20
)

// Freeze implements the method of [vmm.Machine]: the memory is in its file
// already, all else follows.
func (m *machine) Freeze(ctx context.Context) error {
	if m.spec.FreezeTo == nil {
		return errors.New("freeze: the machine was not launched to be frozen")
	}
	// Nobody has planted it: the directory may be the VMM's user's.
	f, err := os.OpenFile(m.spec.FreezeTo.State, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	defer f.Close()
	if err := m.freeze(ctx, f); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return nil
}

func (m *machine) freeze(ctx context.Context, f *os.File) error {
	if st, err := m.Status(ctx); err != nil || st != vmm.Paused {
		return errors.Join(err, fmt.Errorf("the guest is %s, not paused", st))
	}
	if err := m.leaveMemory(ctx); err != nil {
		return err
	}
	if err := m.qmp.give(ctx, stateFD, f); err != nil {
		return err
	}
	if err := m.qmp.callWith(ctx, "migrate", map[string]string{"uri": "fd:" + stateFD}, nil); err != nil {
		return err
	}
	if err := m.awaitWritten(ctx); err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && (fi.Size() == 0 || fi.Size() > maxState) {
		err = fmt.Errorf("a state of %d bytes", fi.Size())
	}
	return err
}

// leaveMemory leaves the memory, which is in a file, out of what is written or
// read (qapi/migration.json, MigrationCapability).
func (m *machine) leaveMemory(ctx context.Context) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	return m.qmp.callWith(ctx, "migrate-set-capabilities",
		map[string][]capability{"capabilities": {{"x-ignore-shared", true}}}, nil)
}

// awaitWritten waits until the state has been written.
func (m *machine) awaitWritten(ctx context.Context) error {
	for {
		var r struct {
			Status string `json:"status"`
			Desc   string `json:"error-desc"`
		}
		if err := m.qmp.call(ctx, "query-migrate", &r); err != nil {
			return err
		}
		switch r.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU could not write the state: %q", r.Desc)
		}
		if err := pause(ctx, statePoll); err != nil {
			return err
		}
	}
}

// restore lets the guest go on that was frozen. A state that makes no sense ends
// QEMU, the child, which has said why then.
func (m *machine) restore(ctx context.Context, c *vmmproc.Child) error {
	ctx, stop := c.While(ctx)
	defer stop()
	loaded := trace.Span(ctx, trace.VMM, "load")
	defer loaded()
	f, err := os.Open(m.spec.Restore.State)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	if err := m.load(ctx, f); err != nil {
		c.AwaitEnd(ctx)
		return fmt.Errorf("restore: %w", err)
	}
	if err := m.tellSizes(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	loaded()
	defer trace.Span(ctx, trace.VMM, "resume")()
	return m.Resume(ctx)
}

func (m *machine) load(ctx context.Context, f *os.File) error {
	if err := m.leaveMemory(ctx); err != nil {
		return err
	}
	if err := m.qmp.give(ctx, stateFD, f); err != nil {
		return err
	}
	if err := m.qmp.callWith(ctx, "migrate-incoming", map[string]string{"uri": "fd:" + stateFD}, nil); err != nil {
		return err
	}
	for {
		var r struct {
			Status string `json:"status"`
		}
		if err := m.qmp.call(ctx, "query-status", &r); err != nil {
			return err
		}
		if r.Status != "inmigrate" {
			return nil
		}
		if err := pause(ctx, statePoll); err != nil {
			return err
		}
	}
}

// tellSizes tells the guest the sizes of its own disks, which it knows as those
// of the machine that was frozen.
func (m *machine) tellSizes(ctx context.Context) error {
	for i, d := range m.spec.Disks {
		if d.ReadOnly || d.Format != vmm.Raw {
			continue
		}
		fi, err := os.Stat(m.spec.PathOf(d))
		if err != nil {
			return err
		}
		args := map[string]any{"node-name": diskNode(i), "size": fi.Size()}
		if err := m.qmp.callWith(ctx, "block_resize", args, nil); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d, or until ctx ends and returns why.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
