package qemu

// rdtsc reads the time stamp counter, after every load before it has been done.
//
//go:noescape
func rdtsc() uint64
