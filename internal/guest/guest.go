// Package guest defines how the host reaches the agent in a guest.
//
// One connection to a machine's agent carries everything. The guest is
// hostile: every implementation bounds what it reads, and nothing here trusts
// what an agent says beyond its form.
package guest

import (
	"context"

	"banger/internal/guest/wire"
)

// Endpoint is where an agent can be reached; see vmm.Endpoint for the kinds.
type Endpoint struct {
	Kind  string // "serial", "vsock-unix", "vsock"
	Path  string
	CID   uint32
	Port  uint32
	Token string // secret that greets the agent
	// Still, if not nil, is asked once a stream is open, before the token is
	// told to who is at its end: an error says that it may be somebody else.
	Still func(context.Context) error
}

// A Dialer connects to agents.
type Dialer interface {
	// Dial returns when the agent has answered Info, trying again until ctx
	// ends: dialling a guest that still boots is what it is for. On an error
	// nothing is left open.
	Dial(ctx context.Context, e Endpoint) (Agent, error)
}

// An Agent is the connection to one agent. Its methods may be called
// concurrently. A call on a connection that broke fails; it is never retried.
type Agent interface {
	wire.AgentServiceClient
	// Done is closed when the connection is no longer usable.
	Done() <-chan struct{}
	// Close ends the connection and every call on it. It may be called
	// twice.
	Close() error
}

// A Boot prepares what one machine's kernel boots with.
type Boot interface {
	// Write writes the initramfs of a machine: base (agent and modules)
	// and the bundle, readable by uid alone. It replaces what was there.
	Write(ctx context.Context, path string, modules []string, b wire.Bundle, uid uint32) error
	// Remove removes it, and succeeds if there is none.
	Remove(path string) error
	// AgentID names the agent that guests boot with, by its content:
	// hexadecimal digits.
	AgentID() (string, error)
}
