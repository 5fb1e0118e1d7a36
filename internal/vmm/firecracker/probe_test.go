package firecracker

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
)

func TestParseVersion(t *testing.T) {
	for _, tt := range []struct {
		out, version string
		major, minor int
		ok           bool
	}{
		{"Firecracker v1.12.1\n\n", "1.12.1", 1, 12, true},
		{"Firecracker v1.17.0-dev\n", "1.17.0", 1, 17, true},
		{"Firecracker v2.0\n", "2.0", 2, 0, true},
		{"jailer v1.12.1", "", 0, 0, false},
		{"Firecracker v99999.1.1", "", 0, 0, false},
		{"", "", 0, 0, false},
	} {
		version, major, minor, ok := parseVersion(tt.out)
		if version != tt.version || major != tt.major || minor != tt.minor || ok != tt.ok {
			t.Errorf("parseVersion(%q) = %q, %d, %d, %v", tt.out, version, major, minor, ok)
		}
	}
}

// pretend writes a program that prints a version.
func pretend(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "firecracker")
	script := "#!/bin/sh\necho 'Firecracker v" + version + "'\necho $1 >>" + path + ".calls\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersion(t *testing.T) {
	for version, templates := range map[string]bool{"1.8.0": false, "1.11.9": false, "1.12.1": true, "2.0.0": true} {
		path := pretend(t, version)
		d := New(Options{Program: path})
		for range 2 {
			if v, err := d.Version(t.Context()); err != nil || v != version {
				t.Errorf("Version = %q, %v, want %s", v, err, version)
			}
		}
		if got, err := d.Templates(t.Context()); err != nil || got != templates {
			t.Errorf("Templates of %s = %v, %v", version, got, err)
		}
		if calls, err := os.ReadFile(path + ".calls"); err != nil || string(calls) != "--version\n" {
			t.Errorf("Firecracker was asked %q, %v", calls, err)
		}
	}
}

func TestBadPrograms(t *testing.T) {
	barred := pretend(t, "1.12.1")
	if err := os.Chmod(barred, 0o600); err != nil {
		t.Fatal(err)
	}
	arm := filepath.Join(t.TempDir(), "arm")
	if err := os.WriteFile(arm, elfFor(0xb7), 0o700); err != nil { // EM_AARCH64
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ program, why, hint string }{
		"missing":           {filepath.Join(t.TempDir(), "none"), "is not installed", installHint},
		"not in PATH":       {"no-such-firecracker", "is not installed", installHint},
		"not executable":    {barred, "is not executable", "chmod 755 " + barred},
		"another processor": {arm, "is for another processor: EM_AARCH64", installHint},
		"too old":           {pretend(t, "1.7.0"), "Firecracker 1.7.0 is too old: banger needs 1.8 or newer", installHint},
		"ancient":           {pretend(t, "0.25.2"), "too old", installHint},
		"no version":        {pretend(t, "x"), "does not tell its version", ""},
	} {
		err := New(Options{Program: tt.program}).Check(t.Context())
		if errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Check = %v of kind %q, want %q", name, err, errkind.Of(err), tt.why)
		}
		if got := strings.Join(errkind.Hints(err), ","); got != tt.hint {
			t.Errorf("%s: hints %q, want %q", name, got, tt.hint)
		}
	}
}

// elfFor is the header of an ELF program for a processor.
func elfFor(machine byte) []byte {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[20] = 2, machine, 1
	h[52], h[54], h[58] = 64, 56, 64
	return h
}

// elfAt is an ELF file with one part, which is loaded at an address.
func elfAt(vaddr uint64) []byte {
	h := elfFor(0x3e)
	h[32], h[56] = 64, 1 // one program header, behind this one
	p := make([]byte, 56)
	p[0] = 1 // PT_LOAD
	binary.LittleEndian.PutUint64(p[16:], vaddr)
	return append(h, p...)
}

func TestCheckKernel(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		content []byte
		why     string
	}{
		"fine":     {elfAt(0xffffffff81000000), ""},
		"program":  {elfAt(0x400000), "is a program, no kernel"},
		"nothing":  {elfFor(0x3e), "is a program, no kernel"},
		"arm":      {elfFor(0xb7), "is for another processor"},
		"bzImage":  {append([]byte("MZ"), make([]byte, 4096)...), "is no ELF image"},
		"empty":    {nil, "is no ELF image"},
		"cut off":  {elfFor(0x3e)[:30], "is no ELF image"},
		"a script": {[]byte("#!/bin/sh\n"), "is no ELF image"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		err := checkKernel(path)
		if tt.why == "" && err != nil || tt.why != "" && (errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), tt.why) || len(errkind.Hints(err)) != 1) {
			t.Errorf("%s: checkKernel = %v, want %q", name, err, tt.why)
		}
	}
	if err := checkKernel(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("checkKernel of nothing = %v", err)
	}
}

func TestCheckTun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tun")
	for _, tt := range []struct {
		mode os.FileMode
		hint string
	}{{0, "modprobe tun"}, {0o600, "chmod 666 " + path}, {0o666, ""}} {
		if tt.mode != 0 {
			if err := os.WriteFile(path, nil, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
		}
		err := checkTun(path)
		if got := strings.Join(errkind.Hints(err), ","); got != tt.hint || (err != nil && errkind.Of(err) != errkind.Host) {
			t.Errorf("checkTun with mode %o = %v, hints %q", tt.mode, err, got)
		}
	}
}
