package server

import (
	"context"
	"io"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/session"
)

var _ api.SessionServiceHandler = (*Server)(nil)

// StartSession starts a session.
func (s *Server) StartSession(ctx context.Context, req *connect.Request[api.StartSessionRequest]) (*connect.Response[api.StartSessionResponse], error) {
	in, cmd := req.Msg, req.Msg.Command
	n, err := s.d.Sessions.Start(ctx, in.Vm, session.Request{
		Name: in.Name, Argv: cmd.GetArgv(), Dir: cmd.GetCwd(), Env: cmd.GetEnv(), User: cmd.GetUser(),
		Stdin: in.Stdin, Terminal: cmd.GetTty(), Tags: in.Tags, Required: in.RequiredCommands, LogLimit: in.LogLimitBytes,
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.StartSessionResponse{Session: toSession(n)}), nil
}

// ListSessions tells of every session that the request's filters let through.
func (s *Server) ListSessions(ctx context.Context, req *connect.Request[api.ListSessionsRequest]) (*connect.Response[api.ListSessionsResponse], error) {
	list, err := s.d.Sessions.List(ctx, req.Msg.Vm, session.Filter{Statuses: req.Msg.Statuses, Tags: req.Msg.Tags})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ListSessionsResponse{Sessions: each(list, toSession)}), nil
}

// ShowSession tells of one session.
func (s *Server) ShowSession(ctx context.Context, req *connect.Request[api.ShowSessionRequest]) (*connect.Response[api.ShowSessionResponse], error) {
	n, err := s.d.Sessions.Show(ctx, req.Msg.Vm, req.Msg.Session)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowSessionResponse{Session: toSession(n)}), nil
}

// StopSession ends a session, with a grace time.
func (s *Server) StopSession(ctx context.Context, req *connect.Request[api.StopSessionRequest]) (*connect.Response[api.StopSessionResponse], error) {
	n, err := s.d.Sessions.Stop(ctx, req.Msg.Vm, req.Msg.Session, graceOf(req.Msg.Grace))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.StopSessionResponse{Session: toSession(n)}), nil
}

// KillSession sends a signal to a session.
func (s *Server) KillSession(ctx context.Context, req *connect.Request[api.KillSessionRequest]) (*connect.Response[api.KillSessionResponse], error) {
	n, err := s.d.Sessions.Kill(ctx, req.Msg.Vm, req.Msg.Session, req.Msg.Signal)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.KillSessionResponse{Session: toSession(n)}), nil
}

// DeleteSession removes a session and its logs.
func (s *Server) DeleteSession(ctx context.Context, req *connect.Request[api.DeleteSessionRequest]) (*connect.Response[api.DeleteSessionResponse], error) {
	n, err := s.d.Sessions.Delete(ctx, req.Msg.Vm, req.Msg.Session)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteSessionResponse{Session: toSession(n)}), nil
}

// SessionLogs sends what a session wrote.
func (s *Server) SessionLogs(ctx context.Context, req *connect.Request[api.SessionLogsRequest], stream *connect.ServerStream[api.SessionLogsResponse]) error {
	in := req.Msg
	r := session.LogRequest{
		Stream: in.Stream, Tail: in.Tail, All: in.All, Follow: in.Follow,
		FromStdout: in.FromStdout, FromStderr: in.FromStderr,
	}
	if in.Since != nil {
		r.Since = in.Since.AsTime()
	}
	err := s.d.Sessions.Logs(ctx, in.Vm, in.Session, r, func(n session.Session, p *wire.SessionLogsResponse) error {
		return stream.Send(&api.SessionLogsResponse{
			Session: string(n.ID), Stream: p.Stream, Path: session.LogPath(n.ID, p.Stream),
			Content: p.Data, Offset: p.Offset, Mark: p.Mark,
		})
	})
	if ctx.Err() != nil {
		return nil // the reader has had enough
	}
	return err
}

// SendSession writes to a session's input.
func (s *Server) SendSession(ctx context.Context, stream *connect.ClientStream[api.SendSessionRequest]) (*connect.Response[api.SendSessionResponse], error) {
	var in *api.SendIn
	if stream.Receive() {
		in = stream.Msg().GetStart()
	}
	switch err := stream.Err(); {
	case err != nil:
		return nil, err
	case in == nil:
		return nil, errkind.New(errkind.Usage, "the first message of a send must name machine and session")
	}
	var timeout time.Duration
	if in.Timeout != nil {
		timeout = max(1, in.Timeout.AsDuration())
	}
	sent, err := s.d.Sessions.Send(ctx, in.Vm, in.Session, session.Input{
		EOF: in.Eof, Timeout: timeout,
		Next: func() ([]byte, error) {
			if stream.Receive() {
				return stream.Msg().GetData(), nil
			}
			if err := stream.Err(); err != nil {
				return nil, err
			}
			return nil, io.EOF
		},
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.SendSessionResponse{BytesWritten: sent.Bytes, TimedOut: sent.TimedOut}), nil
}

// AttachSession joins the caller to a session.
func (s *Server) AttachSession(ctx context.Context, stream *connect.BidiStream[api.AttachSessionRequest, api.AttachSessionResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	if in == nil {
		return errkind.New(errkind.Usage, "the first message of an attach must name machine and session")
	}
	a, err := s.d.Sessions.Attach(ctx, in.Vm, in.Session, in.Attach)
	if err != nil {
		return err
	}
	defer a.Close()
	to := caller[api.AttachSessionResponse]{
		send: stream.Send,
		notice: func(line string) error {
			return stream.Send(&api.AttachSessionResponse{Msg: &api.AttachSessionResponse_Notice{Notice: line}})
		},
	}
	send, stop := to.withNotices(s.m.Notices(a.VM))
	defer stop()
	return relay(ctx, way[wire.AttachSessionRequest, wire.AttachSessionResponse]{
		open:  a.Agent.AttachSession,
		first: a.First,
		recv: func() (*wire.AttachSessionRequest, error) {
			req, err := stream.Receive()
			return req.GetAttach(), err
		},
		passes: func(req *wire.AttachSessionRequest) bool { return req != nil && req.GetStart() == nil }, // one session each
		send: func(resp *wire.AttachSessionResponse) error {
			n, answer, err := a.Answer(ctx, resp)
			switch {
			case err != nil:
				return err
			case n != nil:
				return send(&api.AttachSessionResponse{Msg: &api.AttachSessionResponse_Session{Session: toSession(*n)}})
			}
			return send(&api.AttachSessionResponse{Msg: &api.AttachSessionResponse_Attach{Attach: answer}})
		},
		last:   a.Last,
		broken: a.Broken,
	})
}

// toSession returns a session as callers see it.
func toSession(n session.Session) *api.Session {
	out := &api.Session{
		Id: string(n.ID), Name: n.Name, VmId: string(n.Machine), Vm: n.VM,
		Command: n.Command, Args: n.Args, Cwd: n.Dir, Env: n.Env, User: n.User, Stdin: n.Stdin,
		Tags: n.Tags, RequiredCommands: n.Required, LogLimitBytes: n.LogLimit,
		Status: string(n.Status), GuestPid: optional(n.GuestPID), ExitSignal: n.ExitSignal,
		FailedStage: n.FailedStage, FailedMessage: n.FailedMessage, LastError: n.LastError,
		CreatedAt: timestamp(n.CreatedAt), StartedAt: timestamp(n.StartedAt), EndedAt: timestamp(n.EndedAt),
	}
	if n.Status == session.Exited {
		out.ExitCode = &n.ExitCode
	}
	return out
}
