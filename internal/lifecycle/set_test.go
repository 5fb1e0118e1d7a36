package lifecycle_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
)

func (l *life) workSize(v vm.VM) int64 {
	l.t.Helper()
	fi, err := os.Stat(filepath.Join(l.paths.VM(string(v.ID)).Dir, "work.ext4"))
	if err != nil {
		l.t.Fatal(err)
	}
	return fi.Size()
}

// A machine's size changes while it is stopped; its disk grows and never
// shrinks.
func TestSet(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	disk := v.Spec.DiskBytes
	set := func(n vm.Size, kind errkind.Kind, says string) {
		t.Helper()
		_, err := l.Set(context.Background(), v.ID, n)
		if errkind.Of(err) != kind || !strings.Contains(err.Error(), says) {
			t.Errorf("Set(%+v) = %v, want %s, %q", n, err, kind, says)
		}
	}
	for range 2 { // never started, and stopped
		disk += 16 << 20
		got, err := l.Set(context.Background(), v.ID, vm.Size{VCPUs: 1, MemoryBytes: 128 << 20, DiskBytes: disk})
		if err != nil || got.Spec.VCPUs != 1 || got.Spec.MemoryBytes != 128<<20 || got.Spec.DiskBytes != disk {
			t.Errorf("Set = %+v, %v", got.Spec, err)
		}
		if n := l.workSize(v); n != disk {
			t.Errorf("the disk has %d bytes, want %d", n, disk)
		}
		mustStart(t, l, v)
		set(vm.Size{VCPUs: 1}, errkind.Conflict, "is running: its size is changed while it is stopped")
		if _, err := l.Stop(context.Background(), v.ID, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	before := l.record(v.ID).Spec
	set(vm.Size{DiskBytes: disk - 16<<20}, errkind.Usage, "can only grow")
	set(vm.Size{MemoryBytes: 1 << 60}, errkind.Usage, "memory of")
	set(vm.Size{VCPUs: 4096}, errkind.Usage, "4096 virtual CPUs")
	l.w.SetFail(func(op string) error {
		if op == "before work.grow" {
			return errBoom
		}
		return nil
	})
	set(vm.Size{DiskBytes: disk + 16<<20}, errkind.Internal, "boom")
	l.w.SetFail(nil)
	if now := l.record(v.ID).Spec; now.DiskBytes != before.DiskBytes || now.MemoryBytes != before.MemoryBytes || now.VCPUs != before.VCPUs {
		t.Errorf("refused, and recorded %+v, was %+v", now, before)
	}
	if _, err := l.Set(context.Background(), "nosuch", vm.Size{VCPUs: 1}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("Set of none: %v", err)
	}
}
