package vmm

import "context"

// A Finder finds VMM processes. It may be used concurrently.
type Finder interface {
	// Find returns the process with a signature, whoever started it, or an
	// error that is [ErrNoProcess]. A zombie is no process.
	Find(ctx context.Context, s Signature) (Process, error)
}

// A Process is one VMM process, held by a descriptor: what is done to it is
// never done to another that was given its pid. Its methods may be called
// concurrently.
type Process interface {
	PID() int
	// StartTime is when it started, in clock ticks since the host booted
	// (proc_pid_stat(5), field 22).
	StartTime() uint64
	// Kill sends SIGKILL and waits until the process is gone or ctx ends. A
	// process that is gone already is a success.
	Kill(ctx context.Context) error
	// Wait waits until the process is gone or ctx ends.
	Wait(ctx context.Context) error
	// Close gives up the descriptor; the process goes on. It may be called
	// twice.
	Close() error
}
