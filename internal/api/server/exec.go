package server

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/trace"
	"banger/internal/vm"
)

// Exec runs a command in a running machine.
func (s *Server) Exec(ctx context.Context, stream *connect.BidiStream[api.ExecRequest, api.ExecResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	if in == nil {
		return errkind.New(errkind.Usage, "the first message of an exec must name machine and command")
	}
	v, err := s.m.Resolve(ctx, in.Vm)
	if err != nil {
		return notRun(err)
	}
	return s.command(ctx, v, in.Command,
		func() (*wire.ExecRequest, error) {
			req, err := stream.Receive()
			return req.GetExec(), err
		},
		caller[wire.ExecResponse]{
			send:   func(resp *wire.ExecResponse) error { return stream.Send(&api.ExecResponse{Exec: resp}) },
			notice: func(line string) error { return stream.Send(&api.ExecResponse{Notice: line}) },
		})
}

// command runs one command in a machine, between a caller and the agent. It
// returns nil when the command's exit was sent. An error says whether the
// command may have run.
func (s *Server) command(ctx context.Context, v vm.VM, start *wire.ExecStart, recv func() (*wire.ExecRequest, error), to caller[wire.ExecResponse]) error {
	if start == nil {
		return errkind.New(errkind.Usage, "no command was given")
	}
	reached := trace.Span(ctx, trace.Daemon, "reach the agent")
	t, told, err := s.reachToRun(ctx, v, start)
	reached()
	if err != nil {
		return notRun(err)
	}
	defer t.done()
	send, stop := to.withNotices(s.m.Notices(v.ID))
	defer stop()
	send, end := tracedCommand(ctx, send)
	defer end()
	began := time.Now()
	err = relay(ctx, way[wire.ExecRequest, wire.ExecResponse]{
		open:   t.agent.Exec,
		first:  &wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}},
		recv:   recv,
		passes: func(req *wire.ExecRequest) bool { return req.GetStart() == nil }, // one command each
		send: func(resp *wire.ExecResponse) error {
			told() // what came with the command comes before its first answer
			return send(resp)
		},
		last: func(resp *wire.ExecResponse) bool { return resp.GetExit() != nil },
		broken: func(ctx context.Context, err error) error {
			return s.broken(ctx, t, err, "the command ran", "; the command may have run")
		},
	})
	if err == nil {
		s.d.Log.Debug("exec", "vm", v.ID, "agent", time.Since(began))
	}
	return err
}

func notRun(err error) error { return fmt.Errorf("%w; the command did not run", err) }
