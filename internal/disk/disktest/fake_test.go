package disktest

import (
	"errors"
	"testing"

	"banger/internal/disk"
)

func TestDiskSuiteFake(t *testing.T) {
	RunLayers(t, func(*testing.T) disk.Layers { return Layers{} })
}

func TestFakeWork(t *testing.T) {
	RunWork(t, func(*testing.T) disk.Work { return Work{} })
}

// A fault comes before or after the effect, as it was asked for.
func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	var point string
	ls := Layers{Fail: func(op string) error {
		if op == point {
			return boom
		}
		return nil
	}}
	l := newLayer(t)
	for _, tt := range []struct {
		point string
		left  int
		do    func() error
	}{
		{"before disk.create", 0, func() error { return ls.Create(t.Context(), l) }},
		{"after disk.create", 1, func() error { return ls.Create(t.Context(), l) }},
		{"before disk.attach", 1, func() error { _, err := ls.Attach(t.Context(), l); return err }},
		{"after disk.attach", 2, func() error { _, err := ls.Attach(t.Context(), l); return err }},
		{"before disk.delete", 2, func() error { return ls.Delete(t.Context(), l) }},
		{"after disk.delete", 0, func() error { return ls.Delete(t.Context(), l) }},
	} {
		point = tt.point
		if err := tt.do(); !errors.Is(err, boom) {
			t.Errorf("%s: %v", tt.point, err)
		}
		if names := entries(t, l.Dir); len(names) != tt.left {
			t.Errorf("%s: %q is left, want %d files", tt.point, names, tt.left)
		}
	}
}
