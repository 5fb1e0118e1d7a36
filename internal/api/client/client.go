// Package client is the caller's end of the API: it connects to the daemon
// over its Unix socket, starts the daemon where none answers, and waits until
// one does or has gone.
//
// Every error of a call has a kind and hints as the daemon gave them; one that
// wraps [api.ErrLost] is the connection's.
package client

import (
	"context"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/ctxbody"
)

// maxMessage bounds what the daemon may send as one message, in bytes.
const maxMessage = 64 << 20

// A Client makes calls to one daemon. It may be used concurrently.
type Client struct {
	VM       api.VMServiceClient
	Session  api.SessionServiceClient
	Image    api.ImageServiceClient
	Kernel   api.KernelServiceClient
	Template api.TemplateServiceClient
	Daemon   api.DaemonServiceClient

	socket    string
	transport *http.Transport
}

// New returns a client of the daemon that serves at socket. It connects with
// the first call, and again if the connection was lost; no call is made twice.
func New(socket string) *Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		Protocols:          &p,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	h := &http.Client{Transport: ctxbody.RoundTripper{Base: t}}
	const url = "http://bangerd"
	opts := connect.WithClientOptions(
		connect.WithInterceptors(api.NewClientInterceptor()),
		connect.WithReadMaxBytes(maxMessage),
		// What stays within a machine gains nothing by it.
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	return &Client{
		VM:        api.NewVMServiceClient(h, url, opts),
		Session:   api.NewSessionServiceClient(h, url, opts),
		Image:     api.NewImageServiceClient(h, url, opts),
		Kernel:    api.NewKernelServiceClient(h, url, opts),
		Template:  api.NewTemplateServiceClient(h, url, opts),
		Daemon:    api.NewDaemonServiceClient(h, url, opts),
		socket:    socket,
		transport: t,
	}
}

// Close gives up connections that no call uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }
