package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// machineGrace is what sessions get to end when their machine is to end. It counts
// against the daemon's grace, as initTime and termGrace do after it.
const machineGrace = time.Second

// StopSession implements the method of the protocol.
func (s service) StopSession(ctx context.Context, req *connect.Request[wire.StopSessionRequest]) (*connect.Response[wire.StopSessionResponse], error) {
	st, err := s.sessions.stop(ctx, req.Msg.Id, stopOrder{GraceNS: max(0, req.Msg.GraceNs)})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.StopSessionResponse{Session: st}), nil
}

// SignalSession implements the method of the protocol.
func (s service) SignalSession(ctx context.Context, req *connect.Request[wire.SignalSessionRequest]) (*connect.Response[wire.SignalSessionResponse], error) {
	st, err := s.sessions.running(req.Msg.Id)
	if err != nil {
		return nil, err
	}
	var refused refusedError
	switch err := s.sessions.control(ctx, st.Id, frameSignal, []byte(req.Msg.Signal), false); {
	case errors.As(err, &refused):
		return nil, invalid(refused)
	case err != nil:
		if _, ended := s.sessions.running(st.Id); ended != nil {
			return nil, ended
		}
		return nil, err
	}
	if st, err = s.sessions.get(st.Id); err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.SignalSessionResponse{Session: st}), nil
}

// DeleteSession implements the method of the protocol. There may be no such
// session.
func (s service) DeleteSession(ctx context.Context, req *connect.Request[wire.DeleteSessionRequest]) (*connect.Response[wire.DeleteSessionResponse], error) {
	id := req.Msg.Id
	if err := checkID(id); err != nil {
		return nil, err
	}
	// Whatever its status says: a guest may have garbled it. One whose
	// supervisor is yet to listen finds no directory then, and ends.
	order := []byte("{}")
	if err := s.sessions.control(ctx, id, frameStop, order, true); err != nil && s.sessions.listens(id) {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(s.sessions.path(id)), os.RemoveAll(s.sessions.socket(id))); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&wire.DeleteSessionResponse{}), nil
}

// running returns where a session stands that has not ended; one that has is
// [connect.CodeFailedPrecondition].
func (s *sessions) running(id string) (*wire.SessionStatus, error) {
	st, err := s.get(id)
	if err != nil {
		return nil, err
	}
	if state := sessiondir.State(st.State); state.Final() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(notRunning, state))
	}
	return st, nil
}

// stop has a session end and returns how it did.
func (s *sessions) stop(ctx context.Context, id string, o stopOrder) (*wire.SessionStatus, error) {
	if _, err := s.running(id); err != nil {
		return nil, err
	}
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	err = s.control(ctx, id, frameStop, data, true)
	st, rerr := s.get(id)
	if rerr != nil {
		return nil, rerr
	}
	if err != nil && !sessiondir.State(st.State).Final() {
		return nil, err
	}
	return st, nil
}

// KillSessions kills every session, as the end of the machine does. It is for
// guests that are no machines, in tests.
func (s *Server) KillSessions() {
	s.sessions.spare.drop()
	ids, err := s.sessions.ids()
	if err != nil {
		s.o.Log.Warn("list sessions", "err", err)
	}
	for _, id := range ids {
		st, err := sessiondir.ReadStatus(sessiondir.OSDir(s.sessions.path(id)))
		if err == nil && st.BootID == bootID() && alive(st.Supervisor) {
			_ = unix.Kill(st.Supervisor.PID, unix.SIGKILL) // it may just have ended
		}
	}
}

// endAll ends every session, for the machine is about to end.
func (s *sessions) endAll() {
	ctx, cancel := context.WithTimeout(context.Background(), machineGrace+cancelTime)
	defer cancel()
	ids, err := s.ids()
	if err != nil {
		s.log.Warn("list sessions", "err", err)
	}
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			order := stopOrder{GraceNS: int64(machineGrace), Failure: machineStopped}
			_, err := s.stop(ctx, id, order)
			if err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
				s.log.Warn("end session", "id", id, "err", err)
			}
		})
	}
	all.Wait()
}
