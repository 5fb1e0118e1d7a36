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
	up := a.Copy(ctx)
	defer up.CloseResponse() // ends the copy, if it still goes on
	start := &wire.CopyRequest{Msg: &wire.CopyRequest_Start{Start: in.Copy}}
	if err := up.Send(start); err != nil && !errors.Is(err, io.EOF) {
		return s.brokenWhile(ctx, v, gone, err, copying, "")
	}
	go func() {
		// Ends with the caller's stream, at the latest when Copy returns.
		if err := pumpCopy(up, stream); err != nil {
			cancel()
		}
	}()
	for {
		resp, err := up.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.brokenWhile(ctx, v, gone, err, copying, "")
		}
		if err := stream.Send(&api.CopyResponse{Copy: resp}); err != nil {
			return err
		}
	}
}

// copying is what is going on, for errors.
const copying = "files were copied"

// pumpCopy hands what the caller sends to the agent. An error means that the
// caller has gone.
func pumpCopy(up *connect.BidiStreamForClient[wire.CopyRequest, wire.CopyResponse], stream *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return up.CloseRequest()
		}
		if err != nil {
			return err
		}
		c := req.GetCopy()
		if c == nil || c.GetStart() != nil {
			continue // one start each
		}
		if err := up.Send(c); err != nil {
			return nil // the receiving side tells why
		}
	}
}
