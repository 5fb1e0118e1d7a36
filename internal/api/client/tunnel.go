package client

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/guest/wire"
)

// tunnelChunk is how much is read and sent at once, in bytes.
const tunnelChunk = 64 << 10

type tunnelStream = connect.BidiStreamForClient[api.TunnelRequest, api.TunnelResponse]

// Tunnel joins in and out to something that listens in a running machine, until
// both directions have ended: when in ends, the machine is told, and when the
// machine ends its direction, out is closed. Target is as in the agent's
// protocol: "tcp:127.0.0.1:80", "unix:/path", or "ssh". It may leave a goroutine
// behind that reads in. An error of writing to out is returned as it is.
func (c *Client) Tunnel(ctx context.Context, vm, target string, in io.Reader, out io.WriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.VM.Tunnel(ctx)
	start := &api.TunnelStart{Vm: vm, Target: target}
	if err := stream.Send(&api.TunnelRequest{Msg: &api.TunnelRequest_Start{Start: start}}); err != nil {
		return notSent(err, stream)
	}
	for connected := false; ; {
		r, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := r.GetTunnel().GetMsg().(type) {
		case *wire.TunnelResponse_Connected:
			if !connected {
				connected = true
				go feedTunnel(stream, in)
			}
		case *wire.TunnelResponse_Data:
			if _, err := out.Write(m.Data); err != nil {
				return err
			}
		case *wire.TunnelResponse_CloseWrite:
			if err := out.Close(); err != nil {
				return err
			}
		}
	}
}

// feedTunnel sends what in gives, and its end. Why sending fails, receiving
// tells; that reading does, the machine cannot know.
func feedTunnel(stream *tunnelStream, in io.Reader) {
	send := func(r *wire.TunnelRequest) error {
		return stream.Send(&api.TunnelRequest{Msg: &api.TunnelRequest_Tunnel{Tunnel: r}})
	}
	buf := make([]byte, tunnelChunk)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_Data{Data: buf[:n]}}) != nil {
				return
			}
		}
		if err != nil {
			_ = send(&wire.TunnelRequest{Msg: &wire.TunnelRequest_CloseWrite{CloseWrite: true}})
			return
		}
	}
}
