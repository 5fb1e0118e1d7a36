package vmmtest

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/vmm"
)

// fakeSpec returns a machine that the fake can launch.
func fakeSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vmmtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := newSpec(dir, 1000)
	for _, path := range []string{s.Kernel, s.Initrd} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestVMMSuiteFake(t *testing.T) {
	Run(t, func(t *testing.T) Harness {
		h := NewHost()
		t.Cleanup(func() {
			if ids := h.Processes(); len(ids) != 0 {
				t.Errorf("the suite left %v", ids)
			}
		})
		return Harness{Driver: h.Driver(), Finder: h.Finder(), Spec: fakeSpec}
	})
}

// A process outlives the daemon that launched it, and a fault comes before or
// after the effect as it was asked for.
func TestHostFaults(t *testing.T) {
	h := NewHost()
	s := fakeSpec(t)
	boom := errors.New("boom")
	failAt := func(point string) {
		h.SetFail(func(op string) error {
			if op == point {
				return boom
			}
			return nil
		})
	}

	failAt("before launch")
	if _, err := h.Driver().Launch(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("Launch = %v", err)
	}
	if diff := cmp.Diff([]string{}, h.Processes()); diff != "" {
		t.Errorf("Processes after a launch that failed before (-want +got):\n%s", diff)
	}
	failAt("after launch")
	if _, err := h.Driver().Launch(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("Launch = %v", err)
	}
	if diff := cmp.Diff([]string{s.ID}, h.Processes()); diff != "" {
		t.Errorf("Processes after a launch that failed after (-want +got):\n%s", diff)
	}

	h.SetFail(nil)
	m, err := h.Driver().Attach(t.Context(), s)
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	if !h.SetStatus(s.ID, vmm.IOError) {
		t.Error("SetStatus found no machine")
	}
	if st, err := m.Status(t.Context()); err != nil || st != vmm.IOError {
		t.Errorf("Status = %q, %v", st, err)
	}
	if !h.PowerOff(s.ID) || h.PowerOff(s.ID) {
		t.Error("PowerOff did not say whether the machine ran")
	}
	<-m.Done()
	if m.Exit() != vmm.ExitPowerOff {
		t.Errorf("Exit = %q", m.Exit())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
