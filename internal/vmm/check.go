package vmm

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"banger/internal/errkind"
)

const (
	// MaxSocketPath is the length of the longest path of a Unix socket:
	// sun_path holds 108 bytes, one of them a NUL (unix(7)).
	MaxSocketPath = 107
	// MinMemory is what the smallest guest boots in, in bytes.
	MinMemory = 32 << 20

	maxVCPUs  = 255      // without an IOMMU no APIC has a higher number
	maxMemory = 16 << 40 // bytes; beyond every host, and far from overflows
	maxDisks  = 16
	maxNICs   = 8
	maxTap    = 15 // bytes (IFNAMSIZ less a NUL; netdevice(7))
	maxSerial = 20 // virtio specification, section 5.2
)

// Check reports what is wrong with s whatever the driver, or nil: sizes out of
// range (of kind errkind.Usage), and what only a fault of the caller's can
// bring about, such as a path that is not absolute. It is pure.
func (s Spec) Check() error {
	if err := s.checkSizes(); err != nil {
		return errkind.Wrap(errkind.Usage, err)
	}
	if s.ID == "" || s.UID == 0 {
		return errors.New("a machine needs an ID, and a user other than root")
	}
	type named struct{ what, path string }
	paths := []named{
		{"directory", s.Dir}, {"console log", s.ConsoleLog}, {"VMM log", s.VMMLog},
		{"API socket", s.APISock}, {"agent socket", s.AgentSock},
	}
	optional := []named{{"metrics", s.Metrics}, {"cgroup", s.Cgroup}}
	for _, p := range optional {
		if p.path != "" {
			paths = append(paths, p)
		}
	}
	if s.Restore == nil {
		paths = append(paths, named{"kernel", s.Kernel}, named{"initramfs", s.Initrd})
	}
	for _, f := range []*Frozen{s.FreezeTo, s.Restore} {
		if f != nil {
			paths = append(paths, named{"memory", f.RAM}, named{"state", f.State})
		}
	}
	for _, p := range paths {
		if err := checkPath(p.path); err != nil {
			return fmt.Errorf("%s: %w", p.what, err)
		}
	}
	for _, p := range []string{s.APISock, s.AgentSock} {
		if len(p) > MaxSocketPath {
			return fmt.Errorf("socket %s: its path takes more than %d bytes", p, MaxSocketPath)
		}
	}
	for _, arg := range s.Cmdline {
		if arg == "" || strings.ContainsAny(arg, " \t\r\n\x00") {
			return fmt.Errorf("kernel argument %q is empty or holds a blank", arg)
		}
	}
	if err := s.checkNICs(); err != nil {
		return err
	}
	return s.checkDisks()
}

func (s Spec) checkNICs() error {
	if len(s.NICs) > maxNICs {
		return fmt.Errorf("%d network interfaces: a machine has at most %d", len(s.NICs), maxNICs)
	}
	for _, n := range s.NICs {
		if n.Tap == "" || len(n.Tap) > maxTap || strings.Trim(n.Tap, serialChars) != "" {
			return fmt.Errorf("tap %q: it takes 1 to %d letters, digits or hyphens", n.Tap, maxTap)
		}
		if a, err := net.ParseMAC(n.MAC); err != nil || len(a) != 6 || a[0]&1 != 0 {
			return fmt.Errorf("tap %s: %q is no address for an interface", n.Tap, n.MAC)
		}
	}
	return nil
}

func (s Spec) checkSizes() error {
	switch {
	case s.VCPUs < 1 || s.VCPUs > maxVCPUs:
		return fmt.Errorf("%d vCPUs: a machine has 1 to %d", s.VCPUs, maxVCPUs)
	case s.MemoryBytes < MinMemory || s.MemoryBytes > maxMemory:
		return fmt.Errorf("%d bytes of memory: a machine has %d MiB to %d TiB", s.MemoryBytes, MinMemory>>20, maxMemory>>40)
	case s.MemoryBytes%(1<<20) != 0:
		return fmt.Errorf("%d bytes of memory: it must be whole mebibytes", s.MemoryBytes)
	}
	return nil
}

func (s Spec) checkDisks() error {
	if len(s.Disks) > maxDisks {
		return fmt.Errorf("%d disks: a machine has at most %d", len(s.Disks), maxDisks)
	}
	seen := map[string]bool{}
	for _, d := range s.Disks {
		if d.Serial == "" || len(d.Serial) > maxSerial || strings.Trim(d.Serial, serialChars) != "" {
			return fmt.Errorf("disk serial %q: it takes 1 to %d letters, digits or hyphens", d.Serial, maxSerial)
		}
		if seen[d.Serial] {
			return fmt.Errorf("disk serial %q: two disks have it", d.Serial)
		}
		seen[d.Serial] = true
		if d.Path == "" || strings.ContainsRune(d.Path, 0) {
			return fmt.Errorf("disk %s: path %q", d.Serial, d.Path)
		}
		if d.Format != Raw && d.Format != QCOW2 {
			return fmt.Errorf("disk %s: format %q is not known", d.Serial, d.Format)
		}
		if len(d.Backing) > 0 && d.Format != QCOW2 {
			return fmt.Errorf("disk %s: a disk of format %s stands on no other", d.Serial, d.Format)
		}
		for _, path := range d.Backing {
			if err := checkPath(path); err != nil {
				return fmt.Errorf("disk %s: image below: %w", d.Serial, err)
			}
		}
	}
	return nil
}

const serialChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

func checkPath(p string) error {
	if !filepath.IsAbs(p) || strings.ContainsAny(p, "\x00\n") {
		return fmt.Errorf("path %q is not absolute, or no path", p)
	}
	return nil
}
