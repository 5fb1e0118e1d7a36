package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/errkind"
)

func TestParseVersion(t *testing.T) {
	tests := []struct {
		out, version string
		major        int
		ok           bool
	}{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", "7.2.22", 7, true},
		{"QEMU emulator version 10.0.50 (v10.0.0-1-gabc)\n", "10.0.50", 10, true},
		{"QEMU emulator version 8.1\n", "8.1", 8, true},
		{"qemu-system-x86_64: error", "", 0, false},
		{"QEMU emulator version 99999999999999999999.1", "", 0, false},
		{"", "", 0, false},
	}
	for _, tt := range tests {
		version, major, ok := parseVersion(tt.out)
		if version != tt.version || major != tt.major || ok != tt.ok {
			t.Errorf("parseVersion(%q) = %q, %d, %v", tt.out, version, major, ok)
		}
	}
}

func TestRacyTCG(t *testing.T) {
	for version, want := range map[string]bool{
		"7.2.22": true, "8.0.4": true, "8.1.0": false, "8.10": false, "9.0.0": false, "10.1.2": false, "": true, "x": true,
	} {
		if got := racyTCG(version); got != want {
			t.Errorf("racyTCG(%q) = %v, want %v", version, got, want)
		}
	}
}

func TestRetranslates(t *testing.T) {
	for version, want := range map[string]bool{
		"7.2.22": true, "8.2.0": true, "9.2.4": true, "10.0.0": false, "10.1.2": false, "11.0": false, "": true,
	} {
		if got := retranslates(version); got != want {
			t.Errorf("retranslates(%q) = %v, want %v", version, got, want)
		}
	}
}

// program writes a pretend QEMU which answers --version and -machine help.
func pretend(t *testing.T, version, machines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\ncase $1 in\n--version) echo 'QEMU emulator version " + version + "' ;;\n-machine) echo '" + machines + "' ;;\nesac\necho $1 >>" + path + ".calls\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	const machines = "Supported machines are:\nmicrovm              microvm (i386)"
	path := pretend(t, "9.1.2", machines)
	d := New(Options{Program: path})
	for range 2 {
		if v, err := d.Version(t.Context()); err != nil || v != "9.1.2" {
			t.Errorf("Version = %q, %v", v, err)
		}
		if err := d.Check(t.Context()); err != nil {
			t.Errorf("Check = %v", err)
		}
	}
	if calls, err := os.ReadFile(path + ".calls"); err != nil || string(calls) != "--version\n-machine\n" {
		t.Errorf("QEMU was asked %q, %v", calls, err)
	}
	for name, program := range map[string]string{
		"missing":    filepath.Join(t.TempDir(), "no-qemu"),
		"too old":    pretend(t, "5.2.0", machines),
		"no microvm": pretend(t, "9.1.2", "pc  microvm-like"),
		"no version": pretend(t, "x", machines),
	} {
		err := New(Options{Program: program}).Check(t.Context())
		if errkind.Of(err) != errkind.Host {
			t.Errorf("%s: Check = %v, want an error of kind host", name, err)
		}
		if name != "no version" && len(errkind.Hints(err)) == 0 {
			t.Errorf("%s: Check = %v, without a hint", name, err)
		}
	}
}
