package vmm

import (
	"context"
	"time"
)

// A Finder finds VMM processes. It may be used concurrently.
type Finder interface {
	// Find returns the process with a signature, whoever started it, or an
	// error that is [ErrNoProcess]. A zombie is no process. The process table
	// goes before the hint, but a process that the hint names for certain, and
	// that only lost its signature, is found all the same. If there are
	// several, one is returned: kill it and ask again.
	Find(ctx context.Context, s Signature, h Hint) (Process, error)
}

// A Hint is where a process was last seen. The zero value is none.
type Hint struct {
	PID       int
	StartTime uint64 // as [Process.StartTime]; 0: not known
}

// Usage is what a process uses of its host.
type Usage struct {
	CPU           time.Duration // on all processors, since it started
	ResidentBytes int64
}

// A Process is one VMM process, held by a descriptor: what is done to it is
// never done to another that was given its pid. Its methods may be called
// concurrently.
type Process interface {
	PID() int
	// StartTime is when it started, in clock ticks since the host booted
	// (proc_pid_stat(5), field 22).
	StartTime() uint64
	// EndIdle makes it, with all its threads, compete for processors as any
	// other does, if it was started with [Spec.Idle]. It may be called twice.
	EndIdle() error
	// Usage is what it has used of the host.
	Usage() (Usage, error)
	// Kill sends SIGKILL and waits until the process is gone or ctx ends. A
	// process that is gone already is a success.
	Kill(ctx context.Context) error
	// Wait waits until the process is gone or ctx ends.
	Wait(ctx context.Context) error
	// Close gives up the descriptor; the process goes on. It may be called
	// twice.
	Close() error
}
