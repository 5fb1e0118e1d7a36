package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"banger/internal/ctxbody"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/trace"
)

const (
	// streamWindow is how much one stream may send that nobody has read, in
	// bytes. The connection's window is 1 GiB, so more than 4,000 followers
	// who do not read leave room for the next call.
	streamWindow = 256 << 10
	// maxFrame is the largest frame that the agent may send, in bytes. Few
	// large ones are a quarter faster than many of HTTP/2's 16 KiB.
	maxFrame = 128 << 10
	// maxMessage and maxHeader bound what the guest may send as one message
	// and as the headers of one answer, in bytes.
	maxMessage = 1 << 20
	maxHeader  = 64 << 10
)

// agent implements guest.Agent.
type agent struct {
	wire.AgentServiceClient
	c    *greeted
	h2   *http.ClientConn
	done chan struct{}
}

var _ guest.Agent = (*agent)(nil)

// newAgent speaks HTTP/2 on c. On an error c may be open still.
func newAgent(ctx context.Context, c *greeted) (*agent, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return c, nil },
		Protocols:              &protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReadFrameSize: maxFrame},
	}
	a := &agent{c: c, done: make(chan struct{})}
	c.done = func() { close(a.done) }
	var err error
	// One connection, and never another: the transport itself is not kept.
	if a.h2, err = t.NewClientConn(ctx, "http", "agent:80"); err != nil {
		return nil, fmt.Errorf("begin HTTP/2: %w", err)
	}
	a.AgentServiceClient = wire.NewAgentServiceClient(a, "http://agent",
		connect.WithReadMaxBytes(maxMessage),
		connect.WithAcceptCompression("gzip", nil, nil)) // a byte stream in memory gains nothing
	return a, nil
}

// Do sends one request over the one connection. When its context ends, so does
// its stream, on both sides.
func (a *agent) Do(r *http.Request) (*http.Response, error) {
	res, err := a.h2.RoundTrip(r)
	if err != nil {
		if r.Context().Err() == nil && a.h2.Err() != nil {
			a.Close() // the agent told to go away
		}
		return nil, err
	}
	ctxbody.Bind(r.Context(), res)
	return res, nil
}

// verify has the agent answer once.
func (a *agent) verify(ctx context.Context) error {
	defer trace.Span(ctx, trace.Guest, "first answer")()
	ctx, cancel := context.WithTimeout(ctx, infoLimit)
	defer cancel()
	res, err := a.Info(ctx, connect.NewRequest(&wire.InfoRequest{}))
	if err != nil {
		return fmt.Errorf("ask agent: %w", err)
	}
	if p := res.Msg.GetProtocol(); p != wire.Protocol {
		return &finalError{fmt.Errorf("agent speaks protocol %d, not %d", p, wire.Protocol)}
	}
	return nil
}

func (a *agent) Done() <-chan struct{} { return a.done }

func (a *agent) Close() error {
	// The HTTP/2 connection closes ours; ours closes what it may have left.
	return errors.Join(a.h2.Close(), a.c.Close())
}
