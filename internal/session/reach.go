package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest"
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

// find finds a session as a caller named it.
func (m *Manager) find(ctx context.Context, machine, ref string) (vm.VM, Session, error) {
	v, err := m.d.Records.Resolve(ctx, machine)
	if err != nil {
		return v, Session{}, err
	}
	s, err := m.d.Records.ResolveSession(ctx, v.ID, ref)
	return v, s, err
}

// reach finds the way to a machine's agent, or says in what words the machine
// does not run. After an error it is not in use.
func (m *Manager) reach(ctx context.Context, v vm.VM) (target, error) {
	done := m.d.Machines.Use(v.ID)
	a, err := m.d.Machines.Agent(ctx, v.ID)
	if errkind.Of(err) == errkind.Conflict && v.State != vm.Paused {
		err = errkind.New(errkind.Conflict, "vm %q is not running", v.Name)
		if settled(v.State) {
			err = errkind.WithHint(err, "banger vm start "+v.Name)
		}
	}
	if err != nil {
		done()
	}
	return target{vm: v, agent: a, gone: m.d.Machines.Gone(v.ID), done: done}, err
}

// findRunning is find and reach.
func (m *Manager) findRunning(ctx context.Context, machine, ref string) (target, Session, error) {
	v, s, err := m.find(ctx, machine, ref)
	if err != nil {
		return target{}, s, err
	}
	t, err := m.reach(ctx, v)
	return t, s, err
}

// checkRuns refuses what takes a session that runs.
func (s Session) checkRuns() error {
	if s.Status.Runs() {
		return nil
	}
	return errkind.WithHint(errkind.New(errkind.Conflict, "session is not running (status=%s)", s.Status),
		"banger vm session show "+s.VM+" "+s.Name)
}

// checkInput refuses what takes a session that runs and can be written to.
func (s Session) checkInput() error {
	if err := s.checkRuns(); err != nil || s.StdinOpen() {
		return err
	}
	return noPipe()
}

func noPipe() error {
	return errkind.New(errkind.Conflict, "session does not have a stdin pipe")
}

// endTime is how long a machine's process may take to end after its agent has
// gone with it.
const endTime = time.Second

// broken tells why a call of an agent ended with an error, while something went
// on with a session. If that session does not run, the words are those of
// checkRuns.
func (m *Manager) broken(ctx context.Context, t target, s Session, err error, while string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if code, ok := said(err); ok {
		if code != connect.CodeNotFound && code != connect.CodeFailedPrecondition {
			return agentError(t.vm, err)
		}
		now, lerr := m.lookOne(ctx, s)
		return cmp.Or(lerr, now.checkRuns(), agentError(t.vm, err))
	}
	select {
	case <-t.gone:
		return errkind.New(errkind.Internal, "machine %q ended while %s: %s", t.vm.Name, while, m.d.Machines.EndOf(ctx, t.vm.ID))
	case <-time.After(endTime): // the stream breaks a moment before the process ends
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return fmt.Errorf("lost the agent of %q; the session goes on: %w", t.vm.Name, err)
}

// said returns the code of an error that an agent answered with; false: it did
// not answer.
func said(err error) (connect.Code, bool) {
	var ce *connect.Error
	if !errors.As(err, &ce) || !connect.IsWireError(err) {
		return 0, false
	}
	return ce.Code(), true
}

// agentError is an error of an agent's call, in words. What the guest wrote is
// made printable.
func agentError(v vm.VM, err error) error {
	code, ok := said(err)
	if !ok {
		return fmt.Errorf("lost the agent of %q: %w", v.Name, err)
	}
	var ce *connect.Error
	errors.As(err, &ce)
	switch code {
	case connect.CodeUnimplemented:
		return errkind.WithHint(
			errkind.New(errkind.Conflict, "the agent of %q knows no sessions: it is of an older release, until the machine is started anew", v.Name),
			"banger vm restart "+v.Name)
	case connect.CodeInvalidArgument:
		return errkind.New(errkind.Usage, "%s", printable(ce.Message()))
	}
	return fmt.Errorf("the agent of %q: %s", v.Name, printable(ce.Message()))
}
