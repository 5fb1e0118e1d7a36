package daemontest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"banger/internal/agent"
	"banger/internal/guest/wire"
)

// Identities are what pretend guests have been told of who they are, and what was
// done to them for that. The zero value is ready for use.
type Identities struct {
	mu     sync.Mutex
	agents map[process]*agent.Server // of guests that began as a template; guarded by mu
	calls  map[string][]string       // by the machine's id; guarded by mu
}

// process is one life of a machine.
type process struct {
	id  string
	pid int
}

// Calls returns what was done to the guests of a machine, in order: "seed",
// "hostname web", "mount /root", "files web", "network", "keep web",
// "journal FROM TO" and "systemctl ARGS".
func (i *Identities) Calls(id string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.calls[id])
}

// agent returns the one agent of a guest that began as a template, made when
// it is first reached: what it was told outlives connections.
func (i *Identities) agent(p process, o agent.ServeOptions) (*agent.Server, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.agents[p]; a != nil {
		return a, nil
	}
	a, err := agent.New(o)
	if err != nil {
		return nil, err
	}
	if i.agents == nil {
		i.agents = map[process]*agent.Server{}
	}
	i.agents[p] = a
	return a, nil
}

// system is a pretend guest's: nothing is done to the host of the test.
type system struct {
	i  *Identities
	id string // of the machine
}

func (s system) note(format string, args ...any) error {
	s.i.mu.Lock()
	defer s.i.mu.Unlock()
	if s.i.calls == nil {
		s.i.calls = map[string][]string{}
	}
	s.i.calls[s.id] = append(s.i.calls[s.id], fmt.Sprintf(format, args...))
	return nil
}

func (s system) Seed([]byte) error { return s.note("seed") }

func (s system) SetHostname(name string) error { return s.note("hostname %s", name) }

func (s system) Quiet(context.Context) error { return nil }

func (s system) Hurry(bool) error { return nil }

func (s system) Grow(_ context.Context, m wire.Mount) error { return s.note("grow %s", m.Target) }

func (s system) SetFiles(b wire.Bundle) error { return s.note("files %s", b.Hostname) }

func (s system) SetNetwork([]wire.NIC) error { return s.note("network") }

func (s system) SetName(b wire.Bundle) error { return s.note("name %s", b.Hostname) }

func (s system) Keep(bundle []byte) error {
	b, err := wire.DecodeBundle(bundle)
	if err != nil {
		return err
	}
	return s.note("keep %s", b.Hostname)
}

func (s system) MoveJournal(from, to string) error { return s.note("journal %s %s", from, to) }

// Systemctl is that of a guest all of which runs, without an SSH server.
func (s system) Systemctl(_ context.Context, args ...string) (string, error) {
	err := s.note("systemctl %s", strings.Join(args, " "))
	switch args[0] {
	case "is-system-running":
		return "running\n", err
	case "is-active":
		return strings.Repeat("inactive\n", len(args)-1), err
	}
	return "", err
}
