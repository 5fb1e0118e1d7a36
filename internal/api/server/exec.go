package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
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
		return err
	}
	return s.command(ctx, v, in.Command,
		func() (*wire.ExecRequest, error) {
			req, err := stream.Receive()
			return req.GetExec(), err
		},
		caller{
			exec:   func(resp *wire.ExecResponse) error { return stream.Send(&api.ExecResponse{Exec: resp}) },
			notice: func(line string) error { return stream.Send(&api.ExecResponse{Notice: line}) },
		})
}

// A caller is who a command runs for.
type caller struct {
	exec   func(*wire.ExecResponse) error
	notice func(string) error
}

// withNotices passes on what there is to tell of a machine, until stop has
// returned. What is sent meanwhile takes turns with that.
func (s *Server) withNotices(v vm.VM, to caller) (send func(*wire.ExecResponse) error, stop func()) {
	lines, unsubscribe := s.m.Notices(v.ID)
	var mu sync.Mutex
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case line := <-lines:
				mu.Lock()
				_ = to.notice(line) // that the caller has gone, who sends next finds out
				mu.Unlock()
			case <-end:
				return
			}
		}
	}()
	send = func(r *wire.ExecResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return to.exec(r)
	}
	return send, func() { unsubscribe(); close(end); <-ended }
}

// command runs one command in a machine, between a caller and the agent. It
// returns nil when the command's exit was sent.
func (s *Server) command(ctx context.Context, v vm.VM, start *wire.ExecStart, recv func() (*wire.ExecRequest, error), to caller) error {
	if start == nil {
		return errkind.New(errkind.Usage, "no command was given")
	}
	a, err := s.m.Agent(ctx, v.ID)
	if err != nil {
		return err
	}
	gone := s.m.Gone(v.ID)
	send, stop := s.withNotices(v, to)
	defer stop()
	began := time.Now()
	err = relay(ctx, way[wire.ExecRequest, wire.ExecResponse]{
		open:   a.Exec,
		first:  &wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}},
		recv:   recv,
		passes: func(req *wire.ExecRequest) bool { return req.GetStart() == nil }, // one command each
		send:   send,
		last:   func(resp *wire.ExecResponse) bool { return resp.GetExit() != nil },
		broken: func(ctx context.Context, err error) error { return s.broken(ctx, v, gone, err) },
	})
	if err == nil {
		s.d.Log.Debug("exec", "vm", v.ID, "agent", time.Since(began))
	}
	return err
}

// endTime is how long a machine's process may take to end after its agent has
// gone with it.
const endTime = time.Second

// broken tells why the stream to a command broke.
func (s *Server) broken(ctx context.Context, v vm.VM, gone <-chan struct{}, err error) error {
	return s.brokenWhile(ctx, v, gone, err, "the command ran", "; the command may have run")
}

// brokenWhile is broken for something else that was going on.
func (s *Server) brokenWhile(ctx context.Context, v vm.VM, gone <-chan struct{}, err error, while, but string) error {
	if ctx.Err() != nil {
		return errkind.Wrap(errkind.Canceled, ctx.Err())
	}
	var ce *connect.Error
	if errors.As(err, &ce) && ce.Code() == connect.CodeInvalidArgument {
		return errkind.New(errkind.Usage, "%s", ce.Message())
	}
	select {
	case <-gone:
		return errkind.New(errkind.Internal, "machine %q ended while %s: %s", v.Name, while, s.m.EndOf(ctx, v.ID))
	case <-time.After(endTime): // the stream breaks a moment before the process ends
	}
	return errkind.New(errkind.Internal, "lost the agent of %q%s: %w", v.Name, but, err)
}
