package vm

import (
	"cmp"
	"time"
)

// VM is the durable record of a machine: what was asked for and what was last
// recorded. Nothing in it tells what is true of the machine now (its pid, its
// devices): that is a handle.Handle.
type VM struct {
	ID          ID
	Name        string // a DNS label, unique
	Spec        Spec
	Ephemeral   bool   // leased to the call that made it
	State       State  //
	StateReason string // why it is in State, a sentence; may be empty
	LastError   string // of the last operation that failed; empty after one that did not
	GuestIP     string // empty without a network
	UID         uint32 // user and group that its VMM runs as; unique
	VsockCID    uint32 // what it is to have if that is free on the host; unique, 3 or more (vsock(7))
	Token       string // secret that greets its agent, 32 hexadecimal digits
	CreatedAt   time.Time
	StartedAt   time.Time // of the last start; zero if never started
}

// Spec is what a user asked for, with defaults filled in and checked.
type Spec struct {
	Image       string // name of the image
	ImageID     string // the version of it on which the root disk stands; empty until made
	Kernel      string // name of the kernel
	Driver      string // name of the VMM driver
	VCPUs       int    // 1 or more
	MemoryBytes int64  // of the guest
	DiskBytes   int64  // size of the work disk
	Network     string // "nat" or "none", as package network has them
	Labels      map[string]string
}

// Size is how large a machine is to be; zero leaves a part as it is.
type Size struct {
	VCPUs       int
	MemoryBytes int64
	DiskBytes   int64
}

// Resized is s with another size.
func (s Spec) Resized(n Size) Spec {
	s.VCPUs = cmp.Or(n.VCPUs, s.VCPUs)
	s.MemoryBytes = cmp.Or(n.MemoryBytes, s.MemoryBytes)
	s.DiskBytes = cmp.Or(n.DiskBytes, s.DiskBytes)
	return s
}

// UIDRange is the range of user ids that machines' VMMs may run as.
type UIDRange struct {
	Base  uint32 // the first
	Count uint32 // how many
}
