package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// settlePoll is how long to wait until systemd is asked again that would not
// say.
const settlePoll = 100 * time.Millisecond

// sshUnits are what distributions call their SSH server. Sockets come first:
// they start it for whoever connects.
var sshUnits = []string{"ssh.socket", "sshd.socket", "ssh.service", "sshd.service"}

// Settle implements the method of the protocol.
func (s service) Settle(ctx context.Context, _ *connect.Request[wire.SettleRequest]) (*connect.Response[wire.SettleResponse], error) {
	s.identity.work.Lock()
	defer s.identity.work.Unlock()
	if s.identity.is() != isTemplate { // it was one when it was let in
		return nil, notNow(errNoTemplate)
	}
	if err := s.settle(ctx); err != nil {
		return nil, failure("settle the template", err)
	}
	s.o.Log.Info("template has settled")
	return connect.NewResponse(&wire.SettleResponse{}), nil
}

// settle does it. Preconditions: identity.work is held.
func (s *Server) settle(ctx context.Context) error {
	if err := awaitSystem(ctx, s.o.System); err != nil {
		return err
	}
	stopped, err := stopUnits(ctx, s.o.System, sshUnits)
	left := &s.identity.unfinished
	for _, unit := range stopped {
		if !slices.Contains(left.units, unit) {
			left.units = append(left.units, unit)
		}
	}
	if err != nil {
		return err
	}
	if err := s.rehearseExec(ctx); err != nil {
		return err
	}
	if err := s.o.System.Quiet(ctx); err != nil {
		return err
	}
	s.setHurry(true)
	s.o.Sync()
	return ctx.Err()
}

// awaitSystem waits until systemd has started everything, what failed apart.
// Other inits cannot be asked, and ours has nothing to start.
func awaitSystem(ctx context.Context, sys System) error {
	for {
		out, err := sys.Systemctl(ctx, "is-system-running", "--wait")
		state := strings.TrimSpace(out)
		switch {
		case errors.Is(err, errNoSystemd), state == "running", state == "degraded":
			return nil
		case err != nil && !errors.As(err, new(exitError)) && ctx.Err() == nil:
			return err
		}
		// It could not be waited for yet, or was about to begin anew.
		if perr := pause(ctx, settlePoll); perr != nil {
			return fmt.Errorf("wait for the system to start, which is %.40q: %w", state, perr)
		}
	}
}

// stopUnits stops those of some units of systemd that are active, and returns
// which: also on an error, those that it may have stopped.
func stopUnits(ctx context.Context, sys System, units []string) ([]string, error) {
	// Its exit code tells whether all are active, which none of ours need be.
	out, err := sys.Systemctl(ctx, append([]string{"is-active"}, units...)...)
	if errors.Is(err, errNoSystemd) {
		return nil, nil
	}
	if err != nil && !errors.As(err, new(exitError)) {
		return nil, err
	}
	var active []string
	for i, state := range strings.Fields(out) {
		if i < len(units) && slices.Contains([]string{"active", "activating", "reloading"}, state) {
			active = append(active, units[i])
		}
	}
	if len(active) == 0 {
		return nil, nil
	}
	_, err = sys.Systemctl(ctx, append([]string{"stop"}, active...)...)
	return active, err
}

// rehearseExec runs a command as users' are run, so that what that takes is in
// memory: in the agent, in the kernel, and of the shell. How it ends is nothing
// to us: an image need not have a shell.
func (s *Server) rehearseExec(ctx context.Context) error {
	if err := s.exec(ctx, &rehearsal{ctx: ctx}); err != nil {
		return fmt.Errorf("run a command: %w", err)
	}
	return nil
}

// A rehearsal is the stream of a client who runs one command that does nothing.
type rehearsal struct {
	ctx  context.Context
	told bool
	exit *wire.ExecExit // how it ended
}

func (r *rehearsal) Receive() (*wire.ExecRequest, error) {
	if r.told {
		return nil, io.EOF
	}
	r.told = true
	return &wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{Argv: []string{"sh", "-c", "true"}}}}, nil
}

func (r *rehearsal) Send(m *wire.ExecResponse) error {
	r.exit = m.GetExit()
	return r.ctx.Err()
}
