package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// rehearse does what makes the first use of a machine slow.
func (m *Manager) rehearse(ctx context.Context, v vm.VM) error {
	l := m.liveOf(v.ID)
	if l == nil {
		return errors.New("the VMM has gone")
	}
	m.finish(l)
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	a, err := m.agentOf(ctx, l)
	if err != nil {
		return err
	}
	// With another name each time, as who claims it may bring one. The last is what
	// it is called if he does not: then its guest has the name already.
	called := vm.MadeUpName()
	for _, name := range []string{"waits", called} {
		if err := rehearseCommand(ctx, a, name); err != nil {
			return fmt.Errorf("run a command: %w", err)
		}
	}
	l.setCalled(called)
	// Its agent has the last word of that still to say.
	select {
	case <-time.After(m.patience.quiet):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rehearseCommand runs a command that prints something, as a user's is run. How it
// ends is nothing to us: an image need not have it. The agent comes first in the
// guest from then on, as it will when the machine is claimed.
func rehearseCommand(ctx context.Context, a guest.Agent, name string) error {
	st := a.Exec(ctx)
	defer st.CloseResponse()
	start := &wire.ExecStart{
		Argv: []string{"cat", "/etc/hostname"},
		Wake: &wire.WakeRequest{UnixNs: time.Now().UnixNano(), Hostname: name, Hurry: true},
	}
	if err := st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}}); err != nil {
		return err
	}
	for {
		resp, err := st.Receive()
		if err != nil {
			return err
		}
		if resp.GetExit() != nil {
			return st.CloseRequest()
		}
	}
}
