package server

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// Copy joins the caller, who has the host's files, to the agent of a running
// machine.
func (s *Server) Copy(ctx context.Context, stream *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	if in.GetCopy() == nil {
		return errkind.New(errkind.Usage, "the first message of a copy must name the machine and what to do")
	}
	t, err := s.reachByName(ctx, in.Vm)
	if err != nil {
		return err
	}
	defer t.done()
	to := caller[wire.CopyResponse]{
		send:   func(resp *wire.CopyResponse) error { return stream.Send(&api.CopyResponse{Copy: resp}) },
		notice: func(line string) error { return stream.Send(&api.CopyResponse{Notice: line}) },
	}
	send, stop := to.withNotices(s.m.Notices(t.vm.ID))
	defer stop()
	return relay(ctx, way[wire.CopyRequest, wire.CopyResponse]{
		open:  t.agent.Copy,
		first: &wire.CopyRequest{Msg: &wire.CopyRequest_Start{Start: in.Copy}},
		recv: func() (*wire.CopyRequest, error) {
			req, err := stream.Receive()
			return req.GetCopy(), err
		},
		passes: func(c *wire.CopyRequest) bool { return c != nil && c.GetStart() == nil }, // one start each
		send:   send,
		broken: func(ctx context.Context, err error) error {
			return s.broken(ctx, t, err, "files were copied", "")
		},
	})
}
