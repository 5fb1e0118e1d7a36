package server

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/template"
)

// ListTemplates tells of every template, damaged ones too.
func (s *Server) ListTemplates(ctx context.Context, _ *connect.Request[api.ListTemplatesRequest]) (*connect.Response[api.ListTemplatesResponse], error) {
	list, err := s.m.Templates(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ListTemplatesResponse{Templates: each(list, toTemplate)}), nil
}

// ShowTemplate tells of one template.
func (s *Server) ShowTemplate(ctx context.Context, req *connect.Request[api.ShowTemplateRequest]) (*connect.Response[api.ShowTemplateResponse], error) {
	t, err := s.m.Template(ctx, req.Msg.Template)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowTemplateResponse{Template: toTemplate(t)}), nil
}

// VerifyTemplate reads all of a template.
func (s *Server) VerifyTemplate(ctx context.Context, req *connect.Request[api.VerifyTemplateRequest]) (*connect.Response[api.VerifyTemplateResponse], error) {
	t, err := s.m.VerifyTemplate(ctx, req.Msg.Template)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.VerifyTemplateResponse{Template: toTemplate(t)}), nil
}

// DeleteTemplate removes a template that no machine stands on.
func (s *Server) DeleteTemplate(ctx context.Context, req *connect.Request[api.DeleteTemplateRequest]) (*connect.Response[api.DeleteTemplateResponse], error) {
	t, err := s.m.DeleteTemplate(ctx, req.Msg.Template)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteTemplateResponse{Template: toTemplate(t)}), nil
}

// PruneTemplates removes templates that no machine stands on, or tells which it
// would.
func (s *Server) PruneTemplates(ctx context.Context, req *connect.Request[api.PruneTemplatesRequest], stream *connect.ServerStream[api.PruneTemplatesResponse]) error {
	o, err := s.pruneOptions(ctx, req.Msg)
	if err != nil {
		return err
	}
	prune := s.m.PruneTemplates
	if req.Msg.DryRun {
		prune = s.m.PrunableTemplates
	}
	gone, err := prune(ctx, o)
	for _, t := range gone {
		msg := &api.PruneTemplatesResponse{Template: toTemplate(lifecycle.TemplateUse{Template: t})}
		if serr := stream.Send(msg); serr != nil {
			return errors.Join(err, serr)
		}
	}
	return err
}

// MakeTemplate makes the template of a kind of machines, if there is none. It ends
// with the call: nobody else waits for it.
func (s *Server) MakeTemplate(ctx context.Context, req *connect.Request[api.MakeTemplateRequest], stream *connect.ServerStream[api.MakeTemplateResponse]) error {
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.MakeTemplateResponse{Msg: &api.MakeTemplateResponse_Progress{Progress: p}})
	})
	defer r.stop()
	t, err := s.m.EnsureTemplate(ctx, fromSpec(req.Msg.Spec), r.progress)
	if err != nil {
		return err
	}
	r.stop()
	out := toTemplate(lifecycle.TemplateUse{Template: t})
	return stream.Send(&api.MakeTemplateResponse{Msg: &api.MakeTemplateResponse_Template{Template: out}})
}

// pruneOptions reads what is to go. Of no time at all since its last use a
// template is that nobody uses now.
func (s *Server) pruneOptions(ctx context.Context, req *api.PruneTemplatesRequest) (template.PruneOptions, error) {
	o := template.PruneOptions{MaxBytes: req.MaxBytes}
	if req.UnusedFor != nil {
		o.UnusedFor = max(1, req.UnusedFor.AsDuration())
	}
	if req.MaxBytes < 0 || req.UnusedFor.AsDuration() < 0 {
		return o, errkind.New(errkind.Usage, "templates are pruned by a size and a time that are not negative")
	}
	if len(req.Ids) == 0 {
		return o, nil
	}
	all, err := s.m.Templates(ctx)
	if err != nil {
		return o, err
	}
	o.Keep = make(map[string]bool)
	for _, t := range all {
		o.Keep[t.ID] = true
	}
	for _, id := range req.Ids {
		delete(o.Keep, id)
	}
	return o, nil
}

// toTemplate returns a template as callers see it: not the token, with which
// whoever has it greets the agents of machines made of it.
func toTemplate(t lifecycle.TemplateUse) *api.Template {
	k := t.Key
	out := &api.Template{
		Id: t.ID, Image: k.Image, ImageId: k.ImageID, Kernel: k.Kernel, KernelId: k.KernelID,
		Driver: k.Driver, VmmVersion: k.VMM, Agent: k.Agent, Cpu: k.CPU,
		VcpuCount: int32(k.VCPUs), MemoryBytes: k.MemoryBytes, RootBytes: k.RootBytes, WorkBytes: k.WorkBytes,
		SizeBytes: t.SizeBytes, CreatedAt: timestamp(t.CreatedAt), UsedAt: timestamp(t.UsedAt),
		Machines: t.Machines, Damaged: t.Damaged,
		Dir: t.Dir, RamPath: t.RAM(), StatePath: t.State(), RootPath: t.Root(), WorkPath: t.Work(),
	}
	switch {
	case k.Image == "": // its record cannot be read
	case k.Network:
		out.Network = network.NAT
	default:
		out.Network = network.None
	}
	return out
}
