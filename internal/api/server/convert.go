package server

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/vm"
)

// toAPI returns a machine as callers see it.
func (s *Server) toAPI(v vm.VM) *api.VM {
	d := s.m.Details(v)
	h := d.Handle
	return &api.VM{
		Id: string(v.ID), Name: v.Name, State: string(v.State), StateReason: v.StateReason,
		Image: v.Spec.Image, Kernel: v.Spec.Kernel, Driver: v.Spec.Driver,
		VcpuCount: int32(v.Spec.VCPUs), MemoryBytes: v.Spec.MemoryBytes, DiskBytes: v.Spec.DiskBytes,
		GuestIp: v.GuestIP, VsockCid: cmp.Or(h.VsockCID, v.VsockCID),
		ApiSockPath: d.Paths.APISock(), VsockPath: d.Paths.AgentSock(), LogPath: d.Paths.ConsoleLog(),
		MetricsPath: d.Paths.Metrics(), DnsName: config.DNSName(v.Name), VmDir: d.Paths.Dir,
		SystemOverlay: d.SystemOverlay, WorkDiskPath: d.WorkDisk, Cgroup: d.Cgroup, LastError: v.LastError,
		CreatedAt: timestamp(v.CreatedAt), StartedAt: timestamp(v.StartedAt),
		Labels: v.Spec.Labels, Ephemeral: v.Ephemeral, Network: v.Spec.Network, Mac: macOf(v),
		Template: v.Template, Purpose: string(v.Purpose),
		AutoPauseSeconds: v.Spec.AutoPause.Seconds(),
		Handles: &api.Handles{
			Pid: optional(int32(h.PID)), TapDevice: optional(h.TapDevice),
			BaseLoop: optional(h.BaseLoop), CowLoop: optional(h.CowLoop),
			DmName: optional(h.DMName), DmDev: optional(h.DMDev),
		},
	}
}

// macOf returns the address of a machine's interface, "" if it has none.
func macOf(v vm.VM) string {
	mac, err := network.MAC(string(v.ID))
	if v.Spec.Network != network.NAT || err != nil {
		return ""
	}
	return mac.String()
}

// optional returns nil, which is null in JSON, for what there is none of.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// autoPauseOf is how long nobody has to use a machine for it to be paused, nil
// if nothing is said of it.
func autoPauseOf(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	after := d.AsDuration()
	return &after
}

func fromSpec(s *api.Spec) vm.Spec {
	return vm.Spec{
		Image: s.GetImage(), Kernel: s.GetKernel(), Driver: s.GetDriver(),
		VCPUs: int(s.GetVcpuCount()), MemoryBytes: s.GetMemoryBytes(), DiskBytes: s.GetDiskBytes(),
		Labels: s.GetLabels(), Network: s.GetNetwork(),
	}
}

func toImage(i image.Image, packages bool) *api.Image {
	out := &api.Image{
		Name: i.Name, Id: i.ID, RecipeHash: i.RecipeHash, Source: i.Source,
		SizeBytes: i.SizeBytes, DiskUsageBytes: i.UsedBytes, DefaultKernel: i.DefaultKernel,
		Init: i.Init, CreatedAt: timestamp(i.CreatedAt), Path: i.Root,
	}
	if packages {
		for _, p := range i.Packages {
			out.Packages = append(out.Packages, &api.Package{Name: p.Name, Version: p.Version})
		}
	}
	return out
}

func toKernel(k kernel.Kernel) *api.Kernel {
	return &api.Kernel{
		Name: k.Name, Version: k.Version, Source: k.Source, PackageVersion: k.PackageVersion,
		SizeBytes: k.SizeBytes, CreatedAt: timestamp(k.CreatedAt),
		VmlinuxPath: k.VMLinux, ModulesPath: k.ModulesDisk,
	}
}

// each turns a list into messages.
func each[T any, M proto.Message](list []T, f func(T) M) []M {
	out := make([]M, 0, len(list))
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}
