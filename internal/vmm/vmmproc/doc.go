// Package vmmproc holds what every driver needs that starts a VMM's process:
// starting it and telling how it ended, its logs, its socket, and whether this
// host's KVM is real. It knows no VMM's protocol.
//
// A VMM is as little trusted as its guest. It may write what it likes in its
// machine's directory, so nothing that stands there is believed or followed.
package vmmproc
