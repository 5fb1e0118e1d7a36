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
	Ephemeral   bool // leased to the call that made it
	Purpose     Purpose
	Template    string // on whose root disk its own stands; empty: none
	State       State  //
	StateReason string // why it is in State, a sentence; may be empty
	Held        bool   // paused, and to stay so until it is resumed, however much room there is
	LastError   string // of the last operation that failed; empty after one that did not
	GuestIP     string // empty without a network
	UID         uint32 // user and group that its VMM runs as; unique
	VsockCID    uint32 // what it is to have if that is free on the host; unique, 3 or more (vsock(7))
	MachineID   string // of its guest (machine-id(5)); empty, as in old records: see package lifecycle
	Token       string // secret that greets its agent, 32 hexadecimal digits
	CreatedAt   time.Time
	StartedAt   time.Time // of the last start; zero if never started
}

// Purpose is what a machine is for that banger keeps for itself. Nobody can use
// it, and it is not listed unless that is asked for.
type Purpose string

const (
	ForUser     Purpose = ""         // its user's
	ForTemplate Purpose = "template" // it is to be frozen
	ForPool     Purpose = "pool"     // it waits, paused, for a user
)

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
	// AutoPause is how long nobody has to use it for it to be paused, at least
	// MinAutoPause; 0: it never is by itself.
	AutoPause time.Duration
	Labels    map[string]string
}

// A Claim is what makes a machine of the pool a user's.
type Claim struct {
	Name      string // a DNS label that no machine has
	Labels    map[string]string
	Ephemeral bool
	AutoPause time.Duration // as Spec has it
}

// MinAutoPause is the shortest time that a machine can be idle for before it is
// paused.
const MinAutoPause = time.Second

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
