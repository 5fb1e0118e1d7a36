package template

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"unicode/utf8"
)

// Format is of templates as a whole: what they consist of, how their guests
// were left, what a record says. It is part of each key, so that those of
// another format are never found.
const Format = 3

// maxText is how long each text of a key may be, in bytes.
const maxText = 16 << 10

// Key is everything that a template depends on: if one of these is another, the
// template is of no use.
type Key struct {
	Image       string // name
	ImageID     string // version of the image
	Kernel      string // name
	KernelID    string // version of the kernel
	Agent       string // hexadecimal digest of what boots the guest
	Driver      string // name of the VMM's driver
	VMM         string // what the VMM's program says of its version
	CPU         string // model and flags of the host's processor
	VCPUs       int
	MemoryBytes int64
	RootBytes   int64 // size of the root disk as the guest sees it
	WorkBytes   int64 // size of the work disk; that of a machine may be larger
	Network     bool  // there is a network interface
}

// ID names the template of the key: 32 hexadecimal digits, a digest of all
// fields and of [Format]. It is the same in every build of banger.
func (k Key) ID() string {
	h := sha256.New()
	field(h, "template", Format)
	field(h, "image", k.Image)
	field(h, "image_id", k.ImageID)
	field(h, "kernel", k.Kernel)
	field(h, "kernel_id", k.KernelID)
	field(h, "agent", k.Agent)
	field(h, "driver", k.Driver)
	field(h, "vmm", k.VMM)
	field(h, "cpu", k.CPU)
	field(h, "vcpus", k.VCPUs)
	field(h, "memory_bytes", k.MemoryBytes)
	field(h, "root_bytes", k.RootBytes)
	field(h, "work_bytes", k.WorkBytes)
	field(h, "network", k.Network)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// field adds a field by name, length and text, so that no two keys are written
// alike, whatever is in their texts.
func field(h hash.Hash, name string, value any) {
	text := fmt.Sprint(value)
	fmt.Fprintf(h, "%s %d:%s\n", name, len(text), text)
}

// Check returns an error if a field says nothing or cannot be stored as it is.
func (k Key) Check() error {
	for _, f := range []struct{ name, text string }{
		{"image", k.Image}, {"image's id", k.ImageID},
		{"kernel", k.Kernel}, {"kernel's id", k.KernelID},
		{"agent", k.Agent}, {"driver", k.Driver}, {"VMM", k.VMM}, {"CPU", k.CPU},
	} {
		switch {
		case f.text == "":
			return fmt.Errorf("a template's key has no %s", f.name)
		case len(f.text) > maxText:
			return fmt.Errorf("the %s of a template's key has %d bytes, over %d", f.name, len(f.text), maxText)
		case !utf8.ValidString(f.text):
			return fmt.Errorf("the %s of a template's key is not UTF-8", f.name)
		}
	}
	if k.VCPUs <= 0 || k.MemoryBytes <= 0 || k.RootBytes <= 0 || k.WorkBytes <= 0 {
		return fmt.Errorf("a template's key has %d processors, %d bytes of memory and disks of %d and %d", k.VCPUs, k.MemoryBytes, k.RootBytes, k.WorkBytes)
	}
	return nil
}
