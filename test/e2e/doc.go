// Package e2e runs real machines: the real bangerd, the real QEMU, the small
// busybox image unless the point is the distribution. Its tests stand behind
// the build tag "e2e" and need root; "make test-e2e" runs them.
//
// Each test has a daemon with a root of its own, and ends by comparing what is
// left on the host with what there was before.
package e2e
