package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// Wake implements the method of the protocol.
func (s service) Wake(_ context.Context, req *connect.Request[wire.WakeRequest]) (*connect.Response[wire.WakeResponse], error) {
	if err := s.wake(req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.WakeResponse{}), nil
}

// wake sets the clock, and gives the machine another name. Being told the same
// again changes nothing but the clock.
func (s *Server) wake(r *wire.WakeRequest) error {
	if r.UnixNs <= 0 {
		return invalid(errors.New("no time to set the clock to"))
	}
	if r.Hurry {
		s.hurryFor(wakeHurry) // before what the clock wakes gets the processor
	}
	if err := s.o.SetClock(time.Unix(0, r.UnixNs)); err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	if r.Hostname == "" {
		return nil
	}
	if !wire.ValidHostname(r.Hostname) {
		return invalid(fmt.Errorf("host name %q is no DNS label", r.Hostname))
	}
	if err := s.identity.rename(s.o.System, r.Hostname); err != nil {
		return failure("rename the machine", err)
	}
	return nil
}

// rename gives the machine another name, unless it is a template or nobody.
func (i *identity) rename(sys System, name string) error {
	i.naming.Lock()
	defer i.naming.Unlock()
	b := i.now()
	if i.is() != isMachine || b.Hostname == name {
		return nil
	}
	b.Hostname = name
	if err := sys.SetHostname(name); err != nil {
		return err
	}
	if err := sys.SetName(b); err != nil {
		return err
	}
	i.end(b)
	return nil
}

// setClock sets the guest's clock. Timers that wait for a time of day are told
// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func setClock(t time.Time) error {
	now := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}
