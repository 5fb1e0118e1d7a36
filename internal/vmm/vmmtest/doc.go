// Package vmmtest holds the suite that every [vmm.Driver] must pass, a guest
// small enough to run it on real VMMs, and a fake host whose driver passes it
// without any.
//
// What a guest of the suite does is told by one argument of its kernel, by
// [Act]. The fake knows them too, so that the suite is the same for both.
package vmmtest

// An Act is what a guest of the suite does once it has booted.
type Act string

const (
	Idle     Act = "idle"
	PowerOff Act = "poweroff"
	Reboot   Act = "reboot"
	Panic    Act = "panic"
	// AskDisk does what the first line of the disk with the serial
	// [DiskSerial] says, or of the second disk where guests see no serials.
	AskDisk Act = "askdisk"
)

// AwaitDisk waits until there is a line on the disk with the serial DiskSerial,
// at [AwaitedAt], and does what it says.
const AwaitDisk Act = "awaitdisk"

// AwaitedAt is where AwaitDisk looks, in bytes: one megabyte.
const AwaitedAt = 1 << 20

// DiskSerial is the serial of the disk that AskDisk looks for.
const DiskSerial = "vmmtest"

const (
	actArg = "vmmtest.act="
	// noSerialsArg tells a guest that disks are found by their order.
	noSerialsArg = "vmmtest.noserials"
)

// Arg returns the kernel argument that tells a guest to do a.
func (a Act) Arg() string { return actArg + string(a) }
