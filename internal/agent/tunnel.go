package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// tunnelDial bounds connecting to a tunnel's target.
const tunnelDial = 10 * time.Second

// A halfCloser is a connection one of whose directions can end alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

type tunnelStream = connect.BidiStream[wire.TunnelRequest, wire.TunnelResponse]

// Tunnel implements the method of the protocol. It ends when both directions
// have, or either is broken.
func (s service) Tunnel(ctx context.Context, st *tunnelStream) error {
	first, err := st.Receive()
	if err != nil {
		return orInvalid(err, "tunnel without a target")
	}
	c, err := s.dialTarget(ctx, first.GetTarget())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := st.Send(&wire.TunnelResponse{Msg: &wire.TunnelResponse_Connected{Connected: true}}); err != nil {
		return err
	}
	in := make(chan error, 1)
	go func() { in <- tunnelIn(st, c) }()
	out := make(chan error, 1)
	go func() { out <- tunnelOut(st, c) }()
	for range 2 {
		select {
		case err = <-in:
			in = nil
		case err = <-out:
			out = nil
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	c.Close()
	if out != nil {
		<-out // it must not use the stream after we return; the closed conn or stream ends it
	}
	return err
}

func (s *Server) dialTarget(ctx context.Context, target string) (halfCloser, error) {
	if target == sshTarget {
		return s.dialSSH(ctx)
	}
	network, addr, ok := strings.Cut(target, ":")
	if !ok || addr == "" || network != "tcp" && network != "unix" {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("tunnel target %q is none of tcp:HOST:PORT, unix:PATH and ssh", target))
	}
	d := net.Dialer{Timeout: tunnelDial}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return c.(halfCloser), nil // TCP and Unix stream sockets both are
}

// tunnelIn carries what the host sends until it ends its direction.
func tunnelIn(st *tunnelStream, c halfCloser) error {
	for {
		req, err := st.Receive()
		if errors.Is(err, io.EOF) {
			return closeWrite(c)
		}
		if err != nil {
			return err
		}
		switch m := req.GetMsg().(type) {
		case *wire.TunnelRequest_Data:
			if _, err := c.Write(m.Data); err != nil {
				return connect.NewError(connect.CodeAborted, err)
			}
		case *wire.TunnelRequest_CloseWrite:
			return closeWrite(c)
		default:
			return connect.NewError(connect.CodeInvalidArgument, errors.New("tunnel with two targets"))
		}
	}
}

// closeWrite ends one direction; that the other side went first is no error.
func closeWrite(c halfCloser) error {
	if err := c.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ENOTCONN) {
		return connect.NewError(connect.CodeAborted, err)
	}
	return nil
}

// tunnelOut carries what the target sends until it ends its direction.
func tunnelOut(st *tunnelStream, c net.Conn) error {
	buf := make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if err := st.Send(&wire.TunnelResponse{Msg: &wire.TunnelResponse_Data{Data: buf[:n]}}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return st.Send(&wire.TunnelResponse{Msg: &wire.TunnelResponse_CloseWrite{CloseWrite: true}})
		}
		if err != nil {
			return connect.NewError(connect.CodeAborted, err)
		}
	}
}
