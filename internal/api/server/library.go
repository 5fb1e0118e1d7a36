package server

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/vm"
)

// BuildImage builds an image anew.
func (s *Server) BuildImage(ctx context.Context, req *connect.Request[api.BuildImageRequest], stream *connect.ServerStream[api.BuildImageResponse]) error {
	if err := checkName("an image", req.Msg.Name); err != nil {
		return err
	}
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.BuildImageResponse{Msg: &api.BuildImageResponse_Progress{Progress: p}})
	})
	defer r.stop()
	i, err := s.d.Images.Build(ctx, req.Msg.Name, req.Msg.Recipe, r.progress)
	if err != nil {
		return err
	}
	s.m.PruneImages(ctx)
	r.stop()
	return stream.Send(&api.BuildImageResponse{Msg: &api.BuildImageResponse_Image{Image: toImage(i, false)}})
}

// ListImages tells of every image.
func (s *Server) ListImages(ctx context.Context, _ *connect.Request[api.ListImagesRequest]) (*connect.Response[api.ListImagesResponse], error) {
	list, err := s.d.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	images := each(list, func(i image.Image) *api.Image { return toImage(i, false) })
	return connect.NewResponse(&api.ListImagesResponse{Images: images}), nil
}

// ShowImage tells of one image, with its packages.
func (s *Server) ShowImage(ctx context.Context, req *connect.Request[api.ShowImageRequest]) (*connect.Response[api.ShowImageResponse], error) {
	i, err := s.d.Images.Get(ctx, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowImageResponse{Image: toImage(i, true)}), nil
}

// DeleteImage removes an image that no machine stands on.
func (s *Server) DeleteImage(ctx context.Context, req *connect.Request[api.DeleteImageRequest]) (*connect.Response[api.DeleteImageResponse], error) {
	if err := s.m.DeleteImage(ctx, req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteImageResponse{}), nil
}

// PullKernel fetches a kernel.
func (s *Server) PullKernel(ctx context.Context, req *connect.Request[api.PullKernelRequest], stream *connect.ServerStream[api.PullKernelResponse]) error {
	if err := checkName("a kernel", req.Msg.Name); err != nil {
		return err
	}
	r := report(func(p *api.Progress) error {
		return stream.Send(&api.PullKernelResponse{Msg: &api.PullKernelResponse_Progress{Progress: p}})
	})
	defer r.stop()
	k, err := s.d.Kernels.Pull(ctx, req.Msg.Name, r.progress)
	if err != nil {
		return err
	}
	r.stop()
	return stream.Send(&api.PullKernelResponse{Msg: &api.PullKernelResponse_Kernel{Kernel: toKernel(k)}})
}

// ImportKernel takes a kernel and its modules from the caller.
func (s *Server) ImportKernel(ctx context.Context, stream *connect.ClientStream[api.ImportKernelRequest]) (*connect.Response[api.ImportKernelResponse], error) {
	if !stream.Receive() {
		return nil, errors.Join(stream.Err(), errkind.New(errkind.Usage, "the first message of an import must be the name"))
	}
	name := stream.Msg().GetName()
	if err := checkName("a kernel", name); err != nil {
		return nil, err
	}
	imgR, imgW := io.Pipe()
	modR, modW := io.Pipe()
	defer imgR.Close() // so that split ends when Import does not read to the end
	defer modR.Close()
	go func() {
		err := split(stream, imgW, modW)
		imgW.CloseWithError(err)
		modW.CloseWithError(err)
	}()
	k, err := s.d.Kernels.Import(ctx, name, imgR, modR, func(string, string, int64, int64) {})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ImportKernelResponse{Kernel: toKernel(k)}), nil
}

// split hands an import's two files on, one after the other.
func split(stream *connect.ClientStream[api.ImportKernelRequest], img, mod *io.PipeWriter) error {
	for stream.Receive() {
		var err error
		switch msg := stream.Msg().Msg.(type) {
		case *api.ImportKernelRequest_Image:
			_, err = img.Write(msg.Image)
		case *api.ImportKernelRequest_Modules:
			img.Close()
			_, err = mod.Write(msg.Modules)
		}
		if err != nil {
			return err
		}
	}
	return stream.Err()
}

// ListKernels tells of every kernel.
func (s *Server) ListKernels(ctx context.Context, _ *connect.Request[api.ListKernelsRequest]) (*connect.Response[api.ListKernelsResponse], error) {
	list, err := s.d.Kernels.List(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ListKernelsResponse{Kernels: each(list, func(k kernel.Kernel) *api.Kernel { return toKernel(k) })}), nil
}

// ShowKernel tells of one kernel.
func (s *Server) ShowKernel(ctx context.Context, req *connect.Request[api.ShowKernelRequest]) (*connect.Response[api.ShowKernelResponse], error) {
	k, err := s.d.Kernels.Get(ctx, req.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowKernelResponse{Kernel: toKernel(k)}), nil
}

// DeleteKernel removes a kernel that no machine uses.
func (s *Server) DeleteKernel(ctx context.Context, req *connect.Request[api.DeleteKernelRequest]) (*connect.Response[api.DeleteKernelResponse], error) {
	if err := s.m.DeleteKernel(ctx, req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteKernelResponse{}), nil
}

// checkName refuses what cannot name an image or a kernel: the rule is that of
// machines.
func checkName(noun, name string) error {
	if vm.CheckName(name) != nil {
		return errkind.New(errkind.Usage, "%q is no name for %s: it takes 1 to 63 lower-case letters, digits and inner hyphens", name, noun)
	}
	return nil
}
