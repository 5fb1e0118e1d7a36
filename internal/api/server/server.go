// Package server is the daemon's end of the API: it turns messages into calls
// of use cases and their answers into messages, and decides nothing.
//
// A caller that goes away cancels what was done for it alone: its exec, an
// ephemeral machine leased to its call, an image that nobody else waits for.
// Whatever changes a persistent machine goes on.
package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/lifecycle"
	"banger/internal/session"
)

// Info is what the daemon tells of itself.
type Info struct {
	PID          int
	Version      string
	Root         string
	Socket       string
	Driver       string // of a machine that names none; empty: none works here
	DriverReason string
	// VMM tells the default driver's version and whether it runs guests on the
	// processor; "" and false if that cannot be told. It may run the VMM. Nil:
	// it cannot.
	VMM     func(context.Context) (version string, accelerated bool)
	DNSAddr string // where the host finds names of machines; empty: nowhere
	// Warnings tells what is not as it should be; it may take a second. Nil:
	// nothing does.
	Warnings    func(context.Context) []string
	StartedAt   time.Time
	SSHIdentity string // the private key that machines let in
	KnownHosts  string // the host keys of all machines
}

// Deps is what a server stands on. All are required.
type Deps struct {
	Machines *lifecycle.Manager
	Sessions *session.Manager
	Images   image.Library
	Kernels  kernel.Library
	Info     Info
	Log      *slog.Logger
	Shutdown func() // begins the daemon's end and returns at once
}

// A Server answers the API's calls.
type Server struct {
	m *lifecycle.Manager
	d Deps
}

// Handler returns the HTTP handler of the whole API.
func Handler(d Deps, opts ...connect.HandlerOption) http.Handler {
	s := &Server{m: d.Machines, d: d}
	mux := http.NewServeMux()
	mux.Handle(api.NewVMServiceHandler(s, opts...))
	mux.Handle(api.NewSessionServiceHandler(s, opts...))
	mux.Handle(api.NewImageServiceHandler(s, opts...))
	mux.Handle(api.NewKernelServiceHandler(s, opts...))
	mux.Handle(api.NewTemplateServiceHandler(s, opts...))
	mux.Handle(api.NewDaemonServiceHandler(s, opts...))
	return mux
}

// Status tells what the daemon is.
func (s *Server) Status(ctx context.Context, req *connect.Request[api.StatusRequest]) (*connect.Response[api.StatusResponse], error) {
	i := s.d.Info
	var warnings []string
	if i.Warnings != nil && !req.Msg.Brief {
		warnings = i.Warnings(ctx)
	}
	var version string
	var accelerated bool
	if i.VMM != nil && !req.Msg.Brief {
		version, accelerated = i.VMM(ctx)
	}
	return connect.NewResponse(&api.StatusResponse{
		Pid: int32(i.PID), Version: i.Version, Root: i.Root, Socket: i.Socket,
		Driver: i.Driver, DriverReason: i.DriverReason, StartedAt: timestamp(i.StartedAt),
		DnsAddr: i.DNSAddr, Warnings: warnings,
		DriverVersion: version, Accelerated: accelerated,
		SshIdentityPath: i.SSHIdentity, SshKnownHostsPath: i.KnownHosts,
	}), nil
}

// Shutdown ends the daemon; machines go on.
func (s *Server) Shutdown(context.Context, *connect.Request[api.ShutdownRequest]) (*connect.Response[api.ShutdownResponse], error) {
	s.d.Shutdown()
	return connect.NewResponse(&api.ShutdownResponse{}), nil
}
