package server

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/lifecycle"
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
	if !in.Ephemeral {
		v, err := s.bringUp(context.WithoutCancel(ctx), in, stream)
		if err != nil {
			return err
		}
		return s.runIn(ctx, v, in.Command, stream)
	}
	v, err := s.bringUp(ctx, in, stream)
	if err == nil {
		err = s.runIn(ctx, v, in.Command, stream)
	}
	if v.ID == "" {
		return err // it was never made
	}
	// The lease ends with the call, however the call ended.
	var warning string
	if _, derr := s.m.Delete(context.WithoutCancel(ctx), v.ID); derr != nil && errkind.Of(derr) != errkind.NotFound {
		warning = derr.Error()
	}
	if err == nil {
		err = stream.Send(&api.RunResponse{Msg: &api.RunResponse_Cleanup{Cleanup: &api.Cleanup{Warning: warning}}})
	}
	return err
}

// bringUp creates and starts the machine, with progress. If the machine was
// made but did not start, it is returned with the error.
func (s *Server) bringUp(ctx context.Context, in *api.RunStart, stream *runStream) (vm.VM, error) {
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.RunResponse{Msg: &api.RunResponse_Progress{Progress: p}})
	})
	defer r.stop()
	v, err := s.m.Create(ctx, lifecycle.Request{
		Name: in.Spec.GetName(), Spec: fromSpec(in.Spec), Ephemeral: in.Ephemeral,
	}, r.progress)
	if err != nil {
		return vm.VM{}, err
	}
	up, err := s.withWayOut(ctx, r, v, func() (vm.VM, error) { return s.m.Start(ctx, v.ID, r.progress) })
	if err != nil {
		return v, err
	}
	return up, nil
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
