package server

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/lifecycle"
	"banger/internal/trace"
	"banger/internal/vm"
)

// runStream is the stream of a Run call.
type runStream = connect.BidiStream[api.RunRequest, api.RunResponse]

// Run creates and starts a machine and runs a command in it.
func (s *Server) Run(ctx context.Context, stream *runStream) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	if in == nil {
		return errkind.New(errkind.Usage, "the first message of a run must be its start")
	}
	if in.Trace {
		ctx = trace.With(ctx, trace.New())
	}
	ran := trace.Span(ctx, trace.Daemon, "run")
	v, err := s.run(ctx, in, stream)
	if v.ID != "" && lifecycle.From(in.From) != lifecycle.FromBoot { // else it was never made, or has no use for one
		defer s.m.Used(v)
	}
	var warning string
	if in.Ephemeral && v.ID != "" {
		warning = s.endLease(ctx, v.ID)
	}
	ran()
	sendTrace(ctx, stream)
	if err == nil && in.Ephemeral {
		err = stream.Send(&api.RunResponse{Msg: &api.RunResponse_Cleanup{Cleanup: &api.Cleanup{Warning: warning}}})
	}
	return err
}

// run brings up the machine and runs the command in it. A machine that was made
// is returned with an error too.
func (s *Server) run(ctx context.Context, in *api.RunStart, stream *runStream) (vm.VM, error) {
	making := ctx
	if !in.Ephemeral {
		making = context.WithoutCancel(ctx)
	}
	v, err := s.bringUp(making, in, stream)
	if err == nil {
		err = s.runIn(ctx, v, in.Command, stream)
	}
	return v, err
}

// endLease deletes a machine that was leased to a call, however the call
// ended, and returns what there is to warn of.
func (s *Server) endLease(ctx context.Context, id vm.ID) (warning string) {
	if _, err := s.m.Delete(context.WithoutCancel(ctx), id); err != nil && errkind.Of(err) != errkind.NotFound {
		return err.Error()
	}
	return ""
}

// bringUp creates and starts the machine, with progress. If the machine was
// made but did not start, it is returned with the error.
func (s *Server) bringUp(ctx context.Context, in *api.RunStart, stream *runStream) (vm.VM, error) {
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.RunResponse{Msg: &api.RunResponse_Progress{Progress: p}})
	})
	defer r.stop()
	req := lifecycle.Request{
		Name: in.Spec.GetName(), Spec: fromSpec(in.Spec), Ephemeral: in.Ephemeral,
		From: lifecycle.From(in.From), AutoPause: autoPauseOf(in.Spec.GetAutoPause()),
	}
	return s.createAndStart(ctx, req, r)
}

// runIn runs the command in a machine that is up.
func (s *Server) runIn(ctx context.Context, v vm.VM, cmd *wire.ExecStart, stream *runStream) error {
	if err := stream.Send(&api.RunResponse{Msg: &api.RunResponse_Vm{Vm: s.toAPI(v)}}); err != nil {
		return err
	}
	return s.command(ctx, v, cmd,
		func() (*wire.ExecRequest, error) {
			req, err := stream.Receive()
			return req.GetExec(), err
		},
		caller[wire.ExecResponse]{
			send: func(resp *wire.ExecResponse) error {
				return stream.Send(&api.RunResponse{Msg: &api.RunResponse_Exec{Exec: resp}})
			},
			notice: func(line string) error {
				return stream.Send(&api.RunResponse{Msg: &api.RunResponse_Notice{Notice: line}})
			},
		})
}
