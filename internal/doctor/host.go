package doctor

import (
	"io/fs"
	"time"
)

// Host is what doctor needs to know of a host, as it was when it was looked
// at. What was not asked for is zero.
type Host struct {
	Root      bool // whoever asks has root's rights
	KVM       KVM
	Tun       Tun
	Spaces    []Space // of the state and the cache
	Places    []Place
	Entries   []string // paths of what stands where machines' directories are
	EntryErr  error    // of listing them
	Processes []Process
	Clock     Clock
	NamePort  Holder // of the port for names on loopback
	GuestPort Holder // of the port for names on all addresses
}

// KVM is the kernel's virtualisation.
type KVM struct {
	Err    error  // of opening the device; nil: it opens
	Module string // of the processor's own virtualisation: "kvm_intel"; empty: not loaded
	CPU    string // the module that this processor takes; empty: it offers none
}

// Tun is the device that makes taps.
type Tun struct {
	Err     error // of opening it; nil: it opens
	Other   bool  // it is another device, or none
	Mounted bool  // something is mounted over it
}

// Space is the room on one file system.
type Space struct {
	Dir   string // the nearest directory above that exists, or itself
	Free  int64  // bytes
	Err   error  // of asking
	Cache bool   // it holds images and kernels alone
}

// Place is a directory of the daemon's, or the nearest above it that exists.
type Place struct {
	Path string
	Ours bool // it is the daemon's, not one above
	Mode fs.FileMode
	UID  int
	// Closed is why users of VMMs do not get through to it; nil: they do, or
	// need not.
	Closed error
}

// Process is one that runs as a user of this daemon's machines.
type Process struct {
	PID  int
	UID  uint32
	Name string
}

// Clock is the host's.
type Clock struct {
	Now     time.Time
	Synced  bool
	Err     error // of asking whether it is; nil: that is known
	Service bool  // timedatectl(1) is there
}

// Holder is who has a port.
type Holder struct {
	Taken bool
	PID   int    // 0: not known
	Name  string // of its program
}
