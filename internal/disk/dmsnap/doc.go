// Package dmsnap makes writable layers as device-mapper snapshots, for a VMM
// that wants a block device: Firecracker.
//
// What stands on the host for one machine, and what each piece is found by:
//
//	root.cow       what the guest wrote: sparse, root's alone   Dir
//	root.cow.json  what it was made over                        Dir
//	/dev/loopN     base, read-only, shared by its machines      device, inode
//	/dev/loopM     root.cow                                     device, inode, or path
//	NAME-origin    base and zeros beyond it, if it is smaller   [Name]
//	NAME           the snapshot of it over the COW              [Name]
//	root.dev       node of the snapshot, the VMM's user's       Dir
//
// A layer over a template's begins as a copy of that one's COW, which need not
// be there any more from then on: a persistent snapshot's exceptions are all in
// its COW. Where the file system can, copy and template share the blocks.
//
// Every loop clears itself when its last user goes. So a process that dies
// between two steps leaves no loop that no device uses, and to remove the
// devices is to remove everything.
//
// The node stands in Dir because udev gives those in /dev to root, and may do
// so again at any moment. It is removed before the device: one that outlives
// its device opens whatever comes to have the same number.
//
// All is done by ioctl: starting losetup and dmsetup takes many times longer.
package dmsnap
