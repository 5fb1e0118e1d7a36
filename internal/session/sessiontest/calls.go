package sessiontest

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

var errNone = errors.New("no such session")

// StartSession starts a session; see [wire.AgentServiceHandler].
func (g *Guest) StartSession(ctx context.Context, req *connect.Request[wire.StartSessionRequest]) (*connect.Response[wire.StartSessionResponse], error) {
	st, err := g.do(ctx, "StartSession", req.Msg.Id, func(*running) error {
		s := g.put(req.Msg.Id, req.Msg.Stdin)
		if slices.Contains(append(req.Msg.Required, req.Msg.Command.Argv[0]), Missing) {
			s.st = &wire.SessionStatus{Id: req.Msg.Id, State: "failed", Stage: "check", Message: "there is no command \"missing\""}
			close(s.ended)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.StartSessionResponse{Session: st}), nil
}

// ListSessions tells of sessions.
func (g *Guest) ListSessions(ctx context.Context, req *connect.Request[wire.ListSessionsRequest]) (*connect.Response[wire.ListSessionsResponse], error) {
	if err := g.at(ctx, "before", "ListSessions"); err != nil {
		return nil, err
	}
	ids := req.Msg.Ids
	if len(ids) == 0 {
		ids = g.IDs()
	}
	resp := &wire.ListSessionsResponse{}
	g.mu.Lock()
	for _, id := range ids {
		if s := g.sessions[id]; s != nil {
			resp.Sessions = append(resp.Sessions, g.says(s))
		}
	}
	g.mu.Unlock()
	return connect.NewResponse(resp), g.at(ctx, "after", "ListSessions")
}

// StopSession ends a session.
func (g *Guest) StopSession(ctx context.Context, req *connect.Request[wire.StopSessionRequest]) (*connect.Response[wire.StopSessionResponse], error) {
	st, err := g.do(ctx, "StopSession", req.Msg.Id, func(s *running) error {
		s.end(143, "TERM")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.StopSessionResponse{Session: st}), nil
}

// SignalSession ends a session by KILL or TERM; others it bears.
func (g *Guest) SignalSession(ctx context.Context, req *connect.Request[wire.SignalSessionRequest]) (*connect.Response[wire.SignalSessionResponse], error) {
	st, err := g.do(ctx, "SignalSession", req.Msg.Id, func(s *running) error {
		switch req.Msg.Signal {
		case "KILL":
			s.end(137, "KILL")
		case "TERM":
			s.end(143, "TERM")
		case "HUP", "USR1":
		default:
			return connect.NewError(connect.CodeInvalidArgument, errors.New("no signal "+req.Msg.Signal))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.SignalSessionResponse{Session: st}), nil
}

// DeleteSession removes a session.
func (g *Guest) DeleteSession(ctx context.Context, req *connect.Request[wire.DeleteSessionRequest]) (*connect.Response[wire.DeleteSessionResponse], error) {
	_, err := g.do(ctx, "DeleteSession", req.Msg.Id, func(s *running) error {
		s.end(137, "KILL")
		delete(g.sessions, req.Msg.Id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&wire.DeleteSessionResponse{}), nil
}

// SendSession writes to a session's input.
func (g *Guest) SendSession(ctx context.Context, stream *connect.ClientStream[wire.SendSessionRequest]) (*connect.Response[wire.SendSessionResponse], error) {
	if !stream.Receive() {
		return nil, stream.Err()
	}
	start := stream.Msg().GetStart()
	var data []byte
	for stream.Receive() {
		data = append(data, stream.Msg().GetData()...)
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	resp := &wire.SendSessionResponse{}
	_, err := g.do(ctx, "SendSession", start.Id, func(s *running) error {
		if resp.Refused = s.refuses(); resp.Refused == "" {
			resp.BytesWritten = int64(len(data))
			s.input(data, start.CloseStdin)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// refuses is why a session takes no input; empty: it does.
func (s *running) refuses() string {
	switch {
	case !s.runs():
		return "it does not run"
	case !s.st.StdinOpen:
		return "it has no stdin pipe"
	}
	return ""
}

// input echoes input, and ends with it.
func (s *running) input(data []byte, end bool) {
	s.write("stdout", data)
	if end {
		s.st.StdinOpen = false
		s.end(0, "")
	}
}
