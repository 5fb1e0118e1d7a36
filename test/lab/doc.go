// Package lab boots the lab: one emulated host, on which KVM, device-mapper,
// loop devices, taps, AF_VSOCK and cgroup v2 are real, so that real Firecracker
// runs there. It is a machine of banger's own parts: its first process is
// banger's agent, and commands go to it as those of any machine do.
//
// It is emulated in software, so it needs nothing of its host, and only ratios
// of what is measured in it mean anything. It has no network.
package lab
