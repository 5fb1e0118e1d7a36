package server

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// Create makes a persistent machine and starts it.
func (s *Server) Create(ctx context.Context, req *connect.Request[api.CreateRequest], stream *connect.ServerStream[api.CreateResponse]) error {
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.CreateResponse{Msg: &api.CreateResponse_Progress{Progress: p}})
	})
	defer r.stop()
	ctx = context.WithoutCancel(ctx)
	in := lifecycle.Request{
		Name: req.Msg.Spec.GetName(), Spec: fromSpec(req.Msg.Spec),
		From: lifecycle.From(req.Msg.From), AutoPause: autoPauseOf(req.Msg.Spec.GetAutoPause()),
	}
	var v vm.VM
	var err error
	if req.Msg.NoStart {
		v, err = s.m.Create(ctx, in, r.progress)
	} else {
		v, err = s.createAndStart(ctx, in, r)
	}
	if err != nil {
		return err
	}
	r.stop()
	return stream.Send(&api.CreateResponse{Msg: &api.CreateResponse_Vm{Vm: s.toAPI(v)}})
}

// createAndStart makes a machine that runs: one that waits in the pool, or a new
// one. A new one that did not start is returned with the error.
func (s *Server) createAndStart(ctx context.Context, in lifecycle.Request, r *reporter) (vm.VM, error) {
	if v, ok, err := s.m.Claim(ctx, in); ok || err != nil {
		return v, err
	}
	v, err := s.m.Create(ctx, in, r.progress)
	if err != nil {
		return vm.VM{}, err
	}
	up, err := s.withWayOut(ctx, r, v, func() (vm.VM, error) { return s.m.Start(ctx, v.ID, r.progress) })
	if err != nil {
		return v, err
	}
	return up, nil
}

// Start starts a machine.
func (s *Server) Start(ctx context.Context, req *connect.Request[api.StartRequest], stream *connect.ServerStream[api.StartResponse]) error {
	v, err := s.m.Resolve(ctx, req.Msg.Vm)
	if err != nil {
		return err
	}
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.StartResponse{Msg: &api.StartResponse_Progress{Progress: p}})
	})
	defer r.stop()
	ctx = context.WithoutCancel(ctx)
	if v, err = s.withWayOut(ctx, r, v, func() (vm.VM, error) { return s.m.Start(ctx, v.ID, r.progress) }); err != nil {
		return err
	}
	r.stop()
	return stream.Send(&api.StartResponse{Msg: &api.StartResponse_Vm{Vm: s.toAPI(v)}})
}

// Restart stops a machine, if it is up, and starts it.
func (s *Server) Restart(ctx context.Context, req *connect.Request[api.RestartRequest], stream *connect.ServerStream[api.RestartResponse]) error {
	v, err := s.m.Resolve(ctx, req.Msg.Vm)
	if err != nil {
		return err
	}
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.RestartResponse{Msg: &api.RestartResponse_Progress{Progress: p}})
	})
	defer r.stop()
	ctx = context.WithoutCancel(ctx)
	restart := func() (vm.VM, error) { return s.m.Restart(ctx, v.ID, graceOf(req.Msg.Grace), r.progress) }
	if v, err = s.withWayOut(ctx, r, v, restart); err != nil {
		return err
	}
	r.stop()
	return stream.Send(&api.RestartResponse{Msg: &api.RestartResponse_Vm{Vm: s.toAPI(v)}})
}

// Set changes a machine's size, and when it is paused.
func (s *Server) Set(ctx context.Context, req *connect.Request[api.SetRequest]) (*connect.Response[api.SetResponse], error) {
	size := vm.Size{VCPUs: int(req.Msg.VcpuCount), MemoryBytes: req.Msg.MemoryBytes, DiskBytes: req.Msg.DiskBytes}
	v, err := s.change(ctx, req.Msg.Vm, func(ctx context.Context, id vm.ID) (vm.VM, error) {
		return s.set(ctx, id, size, autoPauseOf(req.Msg.AutoPause))
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.SetResponse{Vm: s.toAPI(v)}), nil
}

// set changes what is to be changed; of what makes no sense, nothing.
func (s *Server) set(ctx context.Context, id vm.ID, size vm.Size, autoPause *time.Duration) (v vm.VM, err error) {
	if autoPause == nil {
		return s.m.Set(ctx, id, size)
	}
	if err := lifecycle.CheckAutoPause(*autoPause); err != nil {
		return v, err
	}
	if size != (vm.Size{}) {
		if v, err = s.m.Set(ctx, id, size); err != nil {
			return v, err
		}
	}
	return s.m.SetAutoPause(ctx, id, *autoPause)
}

// graceOf is how long a guest has to power off: negative for what is
// configured.
func graceOf(g *durationpb.Duration) time.Duration {
	if g == nil {
		return -1
	}
	return max(0, g.AsDuration())
}

// Stop asks a guest to power off, and kills it after the grace time.
func (s *Server) Stop(ctx context.Context, req *connect.Request[api.StopRequest]) (*connect.Response[api.StopResponse], error) {
	v, err := s.change(ctx, req.Msg.Vm, func(ctx context.Context, id vm.ID) (vm.VM, error) {
		return s.m.Stop(ctx, id, graceOf(req.Msg.Grace))
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.StopResponse{Vm: s.toAPI(v)}), nil
}

// Kill ends a machine at once.
func (s *Server) Kill(ctx context.Context, req *connect.Request[api.KillRequest]) (*connect.Response[api.KillResponse], error) {
	v, err := s.change(ctx, req.Msg.Vm, s.m.Kill)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.KillResponse{Vm: s.toAPI(v)}), nil
}

// Pause makes a machine stand.
func (s *Server) Pause(ctx context.Context, req *connect.Request[api.PauseRequest]) (*connect.Response[api.PauseResponse], error) {
	v, err := s.change(ctx, req.Msg.Vm, s.m.Pause)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.PauseResponse{Vm: s.toAPI(v)}), nil
}

// Resume lets a machine go on that stands.
func (s *Server) Resume(ctx context.Context, req *connect.Request[api.ResumeRequest]) (*connect.Response[api.ResumeResponse], error) {
	v, err := s.change(ctx, req.Msg.Vm, s.m.Resume)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ResumeResponse{Vm: s.toAPI(v)}), nil
}

// Delete removes a machine and its disks.
func (s *Server) Delete(ctx context.Context, req *connect.Request[api.DeleteRequest]) (*connect.Response[api.DeleteResponse], error) {
	do := s.m.Delete
	if req.Msg.StoppedOnly {
		do = s.m.DeleteStopped
	}
	v, err := s.change(ctx, req.Msg.Vm, do)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteResponse{Vm: s.toAPI(v)}), nil
}

// change finds a machine and does something to it, to the end, whether or not
// the caller stays.
func (s *Server) change(ctx context.Context, ref string, do func(context.Context, vm.ID) (vm.VM, error)) (vm.VM, error) {
	v, err := s.m.Resolve(ctx, ref)
	if err != nil {
		return v, err
	}
	return do(context.WithoutCancel(ctx), v.ID)
}

// DrainPool deletes the machines that wait for users.
func (s *Server) DrainPool(ctx context.Context, _ *connect.Request[api.DrainPoolRequest]) (*connect.Response[api.DrainPoolResponse], error) {
	n, err := s.m.DrainPool(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DrainPoolResponse{Deleted: int32(n)}), nil
}

// List tells of every machine that the request's filters let through.
func (s *Server) List(ctx context.Context, req *connect.Request[api.ListRequest]) (*connect.Response[api.ListResponse], error) {
	for _, state := range req.Msg.States {
		if !vm.State(state).Valid() {
			return nil, errkind.New(errkind.Usage, "%q is no state of a machine; there is %s", state, stateNames())
		}
	}
	vms, err := s.m.List(ctx)
	if err != nil {
		return nil, err
	}
	vms = slices.DeleteFunc(vms, func(v vm.VM) bool {
		return v.Purpose != vm.ForUser && !req.Msg.All || !hasLabels(v, req.Msg.Labels) || len(req.Msg.States) > 0 && !slices.Contains(req.Msg.States, string(v.State))
	})
	return connect.NewResponse(&api.ListResponse{Vms: each(vms, s.toAPI)}), nil
}

// Stats tells what machines use.
func (s *Server) Stats(ctx context.Context, req *connect.Request[api.StatsRequest]) (*connect.Response[api.StatsResponse], error) {
	vms, err := s.resolveUp(ctx, req.Msg.Vms)
	if err != nil {
		return nil, err
	}
	stats, err := s.m.Stats(ctx, vms)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.StatsResponse{Vms: each(stats, toStats)}), nil
}

// resolveUp finds the machines that refs name, or all that are up.
func (s *Server) resolveUp(ctx context.Context, refs []string) ([]vm.VM, error) {
	if len(refs) == 0 {
		vms, err := s.m.List(ctx)
		return slices.DeleteFunc(vms, func(v vm.VM) bool { return !v.State.Up() || v.Purpose != vm.ForUser }), err
	}
	var vms []vm.VM
	for _, ref := range refs {
		v, err := s.m.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		vms = append(vms, v)
	}
	return vms, nil
}

func toStats(s lifecycle.Stats) *api.VMStats {
	return &api.VMStats{
		Id: string(s.VM.ID), Name: s.VM.Name, State: string(s.VM.State),
		UptimeSeconds: s.At.Sub(s.VM.StartedAt).Seconds(),
		CpuSeconds:    s.Process.CPU.Seconds(), ResidentBytes: s.Process.ResidentBytes,
		NetInBytes: s.Net.In, NetOutBytes: s.Net.Out,
		DiskReadBytes: s.Disk.Read, DiskWrittenBytes: s.Disk.Written,
		RootDiskBytes: s.Root, WorkDiskBytes: s.Work,
		Guest: s.Guest, At: timestamppb.New(s.At),
	}
}

func stateNames() string {
	var names []string
	for _, s := range vm.States() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// hasLabels reports whether a machine has every label of a filter, each KEY or
// KEY=VALUE.
func hasLabels(v vm.VM, filter []string) bool {
	for _, f := range filter {
		key, want, valued := strings.Cut(f, "=")
		if got, ok := v.Spec.Labels[key]; !ok || valued && got != want {
			return false
		}
	}
	return true
}

// Show tells of one machine.
func (s *Server) Show(ctx context.Context, req *connect.Request[api.ShowRequest]) (*connect.Response[api.ShowResponse], error) {
	v, err := s.m.Resolve(ctx, req.Msg.Vm)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowResponse{Vm: s.toAPI(v)}), nil
}

// Logs sends the console's log.
func (s *Server) Logs(ctx context.Context, req *connect.Request[api.LogsRequest], stream *connect.ServerStream[api.LogsResponse]) error {
	v, err := s.m.Resolve(ctx, req.Msg.Vm)
	if err != nil {
		return err
	}
	err = s.m.Logs(ctx, v, int(req.Msg.Tail), req.Msg.Follow, logWriter{stream})
	if ctx.Err() != nil {
		return nil // the reader has had enough
	}
	return err
}

type logWriter struct {
	stream *connect.ServerStream[api.LogsResponse]
}

var _ io.Writer = logWriter{}

func (w logWriter) Write(p []byte) (int, error) {
	if err := w.stream.Send(&api.LogsResponse{Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}
