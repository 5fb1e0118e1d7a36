package server

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// Tunnel joins the caller's stream to something that listens in a running
// machine.
func (s *Server) Tunnel(ctx context.Context, stream *connect.BidiStream[api.TunnelRequest, api.TunnelResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	if in == nil {
		return errkind.New(errkind.Usage, "the first message of a tunnel must name machine and target")
	}
	t, err := s.reachByName(ctx, in.Vm)
	if err != nil {
		return err
	}
	defer t.done()
	return relay(ctx, way[wire.TunnelRequest, wire.TunnelResponse]{
		open:  t.agent.Tunnel,
		first: &wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: in.Target}},
		recv: func() (*wire.TunnelRequest, error) {
			req, err := stream.Receive()
			return req.GetTunnel(), err
		},
		passes: func(r *wire.TunnelRequest) bool { return r != nil && r.GetTarget() == "" }, // one target each
		send:   func(resp *wire.TunnelResponse) error { return stream.Send(&api.TunnelResponse{Tunnel: resp}) },
		broken: func(ctx context.Context, err error) error {
			return s.broken(ctx, t, err, "it was connected to", "")
		},
	})
}
