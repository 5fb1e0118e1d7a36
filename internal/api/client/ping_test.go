package client

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/api"
)

// briefServer answers none who asks for what has to be looked for.
type briefServer struct {
	api.UnimplementedDaemonServiceHandler
}

func (briefServer) Status(ctx context.Context, req *connect.Request[api.StatusRequest]) (*connect.Response[api.StatusResponse], error) {
	if !req.Msg.Brief {
		<-ctx.Done()
	}
	return connect.NewResponse(&api.StatusResponse{}), ctx.Err()
}

// A daemon that has much to look for answers all the same.
func TestPingIsBrief(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	mux := http.NewServeMux()
	mux.Handle(api.NewDaemonServiceHandler(briefServer{}))
	srv := http.Server{Handler: mux, Protocols: &p}
	go srv.Serve(ln)
	defer srv.Close()
	c := New(socket)
	defer c.Close()
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("Ping = %v", err)
	}
}
