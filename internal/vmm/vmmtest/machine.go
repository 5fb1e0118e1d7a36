package vmmtest

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"banger/internal/vmm"
)

// machine is a connection to a pretend VMM. Unlike QEMU's, several may be open
// at once: a daemon that a test dropped keeps its own.
type machine struct {
	h       *Host
	p       *process
	closed  chan struct{}
	changed chan struct{}
	done    chan struct{} // closed when the process or the connection has ended
	once    sync.Once
}

func newMachine(h *Host, p *process) *machine {
	m := &machine{h: h, p: p, closed: make(chan struct{}), changed: make(chan struct{}, 1), done: make(chan struct{})}
	h.mu.Lock()
	p.watchers = append(p.watchers, m.changed)
	h.mu.Unlock()
	go func() {
		defer close(m.done)
		select {
		case <-p.gone:
		case <-m.closed:
		}
	}()
	return m
}

func (m *machine) PID() int { return m.p.pid }

func (m *machine) Agent() vmm.Endpoint {
	return vmm.Endpoint{Kind: vmm.Serial, Path: m.p.spec.AgentSock}
}

func (m *machine) Status(ctx context.Context) (s vmm.Status, err error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	err = m.h.around("status", func() error {
		m.h.mu.Lock()
		defer m.h.mu.Unlock()
		select {
		case <-m.done:
			return errors.New("the connection to the VMM has ended")
		default:
		}
		s = m.p.status
		return nil
	})
	return s, err
}

func (m *machine) DiskTraffic(ctx context.Context) (vmm.DiskTraffic, error) {
	_, err := m.Status(ctx) // answers as long as that does
	return vmm.DiskTraffic{}, err
}

// Freeze of a pretend guest writes what it does, what it booted from, and zeroes.
func (m *machine) Freeze(ctx context.Context) error {
	st, err := m.Status(ctx)
	f := m.p.spec.FreezeTo
	if err != nil || f == nil || st != vmm.Paused {
		return errors.Join(err, errors.New("freeze: the machine is not paused, or not to be frozen"))
	}
	return m.h.around("freeze", func() error {
		initrd, err := os.ReadFile(m.p.spec.Initrd)
		if err != nil {
			return err
		}
		err = os.WriteFile(f.RAM, slices.Concat([]byte(actOf(m.p.spec.Cmdline)), []byte{0}, initrd), 0o600)
		if err == nil {
			err = os.Truncate(f.RAM, m.p.spec.MemoryBytes)
		}
		if err == nil {
			err = os.WriteFile(f.State, []byte(frozenState), 0o600)
		}
		return err
	})
}

func (m *machine) Pause(ctx context.Context) error {
	return m.set(ctx, "pause", func(s vmm.Status) vmm.Status {
		if s == vmm.Running {
			return vmm.Paused
		}
		return s
	})
}

func (m *machine) Resume(ctx context.Context) error {
	return m.set(ctx, "resume", func(vmm.Status) vmm.Status {
		if m.p.full {
			return vmm.IOError
		}
		return vmm.Running
	})
}

// set changes what the guest does. f is called with the host's mu held.
func (m *machine) set(ctx context.Context, op string, f func(vmm.Status) vmm.Status) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.h.around(op, func() error {
		m.h.mu.Lock()
		defer m.h.mu.Unlock()
		select {
		case <-m.done:
			return errors.New("the connection to the VMM has ended")
		default:
		}
		m.p.setStatus(f(m.p.status))
		return nil
	})
}

func (m *machine) Changed() <-chan struct{} { return m.changed }

func (m *machine) Done() <-chan struct{} { return m.done }

func (m *machine) Exit() vmm.Exit {
	select {
	case <-m.p.gone:
		return m.p.exit
	default:
		return vmm.ExitUnknown
	}
}

func (m *machine) Close() error {
	m.once.Do(func() { close(m.closed) })
	<-m.done
	return nil
}

// finder is a pretend process table.
type finder struct{ h *Host }

func (f finder) Find(ctx context.Context, s vmm.Signature, h vmm.Hint) (p vmm.Process, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	err = f.h.around("find", func() error {
		f.h.mu.Lock()
		defer f.h.mu.Unlock()
		if q := f.h.running[s.Next]; q != nil && s == driver(f).Signature(q.spec) && (!q.hidden || h.PID == q.pid) {
			p = held{f.h, q}
			return nil
		}
		return vmm.ErrNoProcess
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// held is a pretend process that was found.
type held struct {
	h *Host
	p *process
}

func (p held) PID() int          { return p.p.pid }
func (p held) StartTime() uint64 { return uint64(p.p.pid) }

// Usage of a pretend process is nothing.
func (p held) Usage() (vmm.Usage, error) { return vmm.Usage{}, nil }
func (p held) Close() error              { return nil }

// EndIdle notes it in what the machine was launched with.
func (p held) EndIdle() error {
	return p.h.around("end idle", func() error {
		p.h.mu.Lock()
		defer p.h.mu.Unlock()
		p.p.spec.Idle = false
		return nil
	})
}

func (p held) Kill(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.h.around("kill", func() error {
		p.h.mu.Lock()
		defer p.h.mu.Unlock()
		p.h.endProcess(p.p, vmm.ExitUnknown)
		return nil
	})
}

func (p held) Wait(ctx context.Context) error {
	select {
	case <-p.p.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
