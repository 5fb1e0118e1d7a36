package server

import (
	"context"
	"errors"
	"io"

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
	v, err := s.m.Resolve(ctx, in.Vm)
	if err != nil {
		return err
	}
	a, err := s.m.Agent(ctx, v.ID)
	if err != nil {
		return err
	}
	gone := s.m.Gone(v.ID)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := a.Tunnel(ctx)
	defer up.CloseResponse() // ends the tunnel, if it is still open
	target := &wire.TunnelRequest{Msg: &wire.TunnelRequest_Target{Target: in.Target}}
	if err := up.Send(target); err != nil && !errors.Is(err, io.EOF) {
		return s.broken(ctx, v, gone, err)
	}
	go func() {
		// Ends with the caller's stream, at the latest when Tunnel returns.
		if err := pumpTunnel(up, stream); err != nil {
			cancel()
		}
	}()
	for {
		resp, err := up.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.broken(ctx, v, gone, err)
		}
		if err := stream.Send(&api.TunnelResponse{Tunnel: resp}); err != nil {
			return err
		}
	}
}

// pumpTunnel hands what the caller sends to the agent. An error means that the
// caller has gone.
func pumpTunnel(up *connect.BidiStreamForClient[wire.TunnelRequest, wire.TunnelResponse], stream *connect.BidiStream[api.TunnelRequest, api.TunnelResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return up.CloseRequest()
		}
		if err != nil {
			return err
		}
		t := req.GetTunnel()
		if t == nil || t.GetTarget() != "" {
			continue // one target each
		}
		if err := up.Send(t); err != nil {
			return nil // the receiving side tells why
		}
	}
}
