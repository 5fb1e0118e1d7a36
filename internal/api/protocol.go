package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"banger/internal/errkind"
)

// Protocol is the version of the protocol that this build speaks. It grows
// when a change would make an older end misunderstand a newer one; a field
// more does not.
const Protocol = 1

// oldest is the oldest version that is still served: one release back.
const oldest = 1

// header carries the version in every request and every answer.
const header = "Banger-Protocol"

// mismatch is the error of ends that do not understand each other. The calls
// that its hints lead to are answered whatever the version.
func mismatch(what string) error {
	return errkind.WithHint(
		errkind.New(errkind.Conflict, "%s: banger and bangerd are of different releases; restart the daemon, machines go on", what),
		"banger daemon stop", "banger daemon start")
}

// check tells whether the version that the other end speaks is served.
func check(h http.Header) error {
	v := h.Get(header)
	n, err := strconv.Atoi(v)
	switch {
	case v == "":
		return mismatch("the other end does not tell its version of the protocol")
	case err != nil || n < oldest || n > Protocol:
		return mismatch("the other end speaks version " + strconv.Quote(v) + " of the protocol, this one " + strconv.Itoa(Protocol))
	}
	return nil
}

// anyVersion reports whether a call is answered whatever version the caller
// speaks: asking what the daemon is and ending it must work after an upgrade.
func anyVersion(procedure string) bool {
	return strings.HasPrefix(procedure, "/"+DaemonServiceName+"/")
}

func tell(h http.Header) { h.Set(header, strconv.Itoa(Protocol)) }

// NewServerInterceptor returns the daemon's end of two agreements: both ends
// speak a version of the protocol that the other serves, and errors travel as
// [ToConnect] makes them. Log, if not nil, is called with each call's name
// and the error it ended with, as the handler returned it.
func NewServerInterceptor(log func(call string, err error)) connect.Interceptor {
	return serverEnd{log}
}

type serverEnd struct {
	log func(string, error)
}

func (s serverEnd) end(procedure string, err error) error {
	if err == nil {
		return nil
	}
	if s.log != nil {
		s.log(procedure, err)
	}
	return ToConnect(err)
}

func (s serverEnd) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		procedure := req.Spec().Procedure
		if err := check(req.Header()); err != nil && !anyVersion(procedure) {
			return nil, s.end(procedure, err)
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, s.end(procedure, err)
		}
		tell(resp.Header())
		return resp, nil
	}
}

func (s serverEnd) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		procedure := conn.Spec().Procedure
		tell(conn.ResponseHeader())
		if err := check(conn.RequestHeader()); err != nil && !anyVersion(procedure) {
			return s.end(procedure, err)
		}
		return s.end(procedure, next(ctx, conn))
	}
}

func (serverEnd) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// NewClientInterceptor returns the caller's end of the same agreements: every
// error of a call comes out as [FromConnect] makes it.
func NewClientInterceptor() connect.Interceptor { return clientEnd{} }

type clientEnd struct{}

func (clientEnd) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		tell(req.Header())
		resp, err := next(ctx, req)
		if err != nil {
			return nil, FromConnect(ctx, err)
		}
		if err := check(resp.Header()); err != nil && !anyVersion(req.Spec().Procedure) {
			return nil, err
		}
		return resp, nil
	}
}

func (clientEnd) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		tell(conn.RequestHeader())
		return &clientConn{StreamingClientConn: conn, ctx: ctx}
	}
}

func (clientEnd) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// clientConn is one call's stream at the caller's end.
type clientConn struct {
	connect.StreamingClientConn
	ctx     context.Context // of the call
	checked bool            // the daemon's version; only the receiver looks at it
}

func (c *clientConn) Send(m any) error {
	return FromConnect(c.ctx, c.StreamingClientConn.Send(m))
}

func (c *clientConn) Receive(m any) error {
	if err := c.StreamingClientConn.Receive(m); err != nil {
		return FromConnect(c.ctx, err)
	}
	if c.checked {
		return nil
	}
	c.checked = true
	return check(c.ResponseHeader())
}
