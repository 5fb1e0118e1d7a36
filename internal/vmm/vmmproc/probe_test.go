package vmmproc

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A program is asked once, again after an error, and again when it is another.
func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm")
	write := func() {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", nil, 0o755), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	var p Probe[int]
	asked := 0
	ask := func() (int, error) { asked++; return asked, nil }
	want := func(n int) {
		t.Helper()
		if got, err := p.Of(path, ask); got != n || err != nil {
			t.Errorf("Of = %d, %v; want %d", got, err, n)
		}
	}
	if _, err := p.Of(path, ask); !errors.Is(err, os.ErrNotExist) || asked != 0 {
		t.Errorf("Of a program that is not there: %v, asked %d times", err, asked)
	}
	write()
	boom := errors.New("boom")
	if got, err := p.Of(path, func() (int, error) { return 7, boom }); got != 0 || !errors.Is(err, boom) {
		t.Errorf("Of = %d, %v", got, err)
	}
	want(1)
	want(1)
	write()
	want(2)
	want(2)
}
