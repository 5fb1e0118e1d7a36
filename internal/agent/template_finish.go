package agent

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// unfinished is what a machine that was a template has still to do: nobody need
// wait for it to use the machine. Not being done shows: an agent that is started
// again in between knows nothing of it, and refuses.
type unfinished struct {
	machineID string   // of the template, under which the journal is; empty: moved
	units     []string // of systemd, that Settle stopped
	done      bool     // all was, once
}

// Finish implements the method of the protocol.
func (s service) Finish(ctx context.Context, _ *connect.Request[wire.FinishRequest]) (*connect.Response[wire.FinishResponse], error) {
	s.identity.work.Lock()
	defer s.identity.work.Unlock()
	left := &s.identity.unfinished
	if left.machineID == "" && !left.done {
		return nil, notNow(errNoTemplate)
	}
	s.setHurry(false)
	if left.machineID != "" { // not said by Identify, which is waited for
		s.o.Log.Info("machine has its identity", "hostname", s.identity.now().Hostname)
	}
	if err := left.finish(ctx, s.o.System, s.identity.now().MachineID); err != nil {
		return nil, failure("finish the machine", err)
	}
	return connect.NewResponse(&wire.FinishResponse{}), nil
}

// finish does what is left, all that it can, and forgets what it did.
func (u *unfinished) finish(ctx context.Context, sys System, machineID string) error {
	var errs []error
	if u.machineID != "" {
		err := moveJournal(ctx, sys, u.machineID, machineID)
		if err == nil {
			u.machineID, u.done = "", true
		}
		errs = append(errs, err)
	}
	if len(u.units) > 0 {
		_, err := sys.Systemctl(ctx, append([]string{"start"}, u.units...)...)
		if err == nil {
			u.units = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// moveJournal makes the journal go on under a new machine-id, by which programs
// that read it find it. Journald itself looks only when it starts; what others
// had sent to it by then it has, and what they log to it stays open.
func moveJournal(ctx context.Context, sys System, from, to string) error {
	err := sys.MoveJournal(from, to)
	_, rerr := sys.Systemctl(ctx, "try-restart", "systemd-journald.service")
	if errors.Is(rerr, errNoSystemd) {
		rerr = nil
	}
	return errors.Join(err, rerr)
}
