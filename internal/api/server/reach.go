package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// A target is a running machine whose agent was reached. It is in use until
// done is called.
type target struct {
	vm    vm.VM
	agent guest.Agent
	gone  <-chan struct{} // closed when the machine's process has ended
	done  func()
}

// reach finds the way to a machine's agent. After an error it is not in use.
func (s *Server) reach(ctx context.Context, v vm.VM) (target, error) {
	done := s.m.Use(v.ID)
	a, err := s.m.Agent(ctx, v.ID)
	if err != nil {
		done()
	}
	return target{vm: v, agent: a, gone: s.m.Gone(v.ID), done: done}, err
}

// reachToRun is reach for a command, which is told what the guest has to be told;
// told is to be called when it has arrived.
func (s *Server) reachToRun(ctx context.Context, v vm.VM, start *wire.ExecStart) (t target, told func(), err error) {
	done := s.m.Use(v.ID)
	a, wake, told, err := s.m.AgentToRun(ctx, v.ID)
	if err != nil {
		done()
	}
	start.Wake = wake
	return target{vm: v, agent: a, gone: s.m.Gone(v.ID), done: done}, told, err
}

// reachByName is reach for a machine as a caller named it.
func (s *Server) reachByName(ctx context.Context, name string) (target, error) {
	v, err := s.m.Resolve(ctx, name)
	if err != nil {
		return target{}, err
	}
	return s.reach(ctx, v)
}

// endTime is how long a machine's process may take to end after its agent has
// gone with it.
const endTime = time.Second

// broken tells why the stream to an agent broke, while something went on; but
// is what is to be said of that if the machine is still there.
func (s *Server) broken(ctx context.Context, t target, err error, while, but string) error {
	if ctx.Err() != nil {
		return errkind.Wrap(errkind.Canceled, ctx.Err())
	}
	var ce *connect.Error
	if errors.As(err, &ce) && ce.Code() == connect.CodeInvalidArgument {
		return errkind.New(errkind.Usage, "%s", ce.Message())
	}
	select {
	case <-t.gone:
		return errkind.New(errkind.Internal, "machine %q ended while %s: %s", t.vm.Name, while, s.m.EndOf(ctx, t.vm.ID))
	case <-time.After(endTime): // the stream breaks a moment before the process ends
	}
	return errkind.New(errkind.Internal, "lost the agent of %q%s: %w", t.vm.Name, but, err)
}

// A caller is who something goes on for in a machine.
type caller[A any] struct {
	send   func(*A) error
	notice func(string) error
}

// withNotices passes on what there is to tell of a machine, until stop has
// returned. What is sent meanwhile takes turns with that.
func (c caller[A]) withNotices(lines <-chan string, unsubscribe func()) (send func(*A) error, stop func()) {
	var mu sync.Mutex
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case line := <-lines:
				mu.Lock()
				_ = c.notice(line) // that the caller has gone, who sends next finds out
				mu.Unlock()
			case <-end:
				return
			}
		}
	}()
	send = func(a *A) error {
		mu.Lock()
		defer mu.Unlock()
		return c.send(a)
	}
	return send, func() { unsubscribe(); close(end); <-ended }
}
