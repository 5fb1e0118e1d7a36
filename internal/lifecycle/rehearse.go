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

// rehearsals is how often a machine of the pool runs a command before it waits.
const rehearsals = 2

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
	for i := range rehearsals {
		// With another name each time, as who claims it brings one.
		if err := rehearseCommand(ctx, a, fmt.Sprintf("waits-%d", i)); err != nil {
			return fmt.Errorf("run a command: %w", err)
		}
	}
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
