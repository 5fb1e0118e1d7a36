// Package agent is banger's side of the guest, one program in three roles:
// the first process of the initramfs, which makes a machine of an image that
// knows nothing of banger; a service under the distribution's init; and PID 1,
// with the service as its child, where the image has no init.
//
// A guest may be booted as a template, which is frozen and goes on as many
// machines. Its service serves nobody until it is told which one it is.
//
// The service speaks the protocol of package wire, over HTTP/2, to the daemon
// alone: whoever connects must greet with the machine's token. It is a single
// process with many commands in it, so it waits for those it started, each by
// its own descriptor, and never for any child that comes.
package agent
