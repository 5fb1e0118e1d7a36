package vmmproc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
)

func TestCheckKVM(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "kvm")
	modules := filepath.Join(dir, "module")
	if err := os.MkdirAll(filepath.Join(modules, "kvm_pvm"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		err := checkKVM(modules, device)
		if errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), why) || len(errkind.Hints(err)) == 0 {
			t.Errorf("checkKVM = %v, hints %q, want %q", err, errkind.Hints(err), why)
		}
	}
	refused("there is no")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("neither kvm_intel nor kvm_amd") // paravirtual
	if err := os.Mkdir(filepath.Join(modules, "kvm_amd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkKVM(modules, device); err != nil {
		t.Errorf("checkKVM = %v", err)
	}
	if err := os.Remove(device); err != nil {
		t.Fatal(err)
	}
	refused("there is no")
}
