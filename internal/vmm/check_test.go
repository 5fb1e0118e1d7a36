package vmm

import (
	"strings"
	"testing"

	"banger/internal/errkind"
)

func goodSpec() Spec {
	return Spec{
		ID: "a1", Dir: "/d", APISock: "/r/api.sock", AgentSock: "/r/agent.sock",
		ConsoleLog: "/d/console.log", VMMLog: "/d/vmm.log", Kernel: "/k", Initrd: "/i",
		Cmdline: []string{"quiet"}, VCPUs: 1, MemoryBytes: 64 << 20, UID: 1000,
		Disks: []Disk{{Serial: "root", Path: "root.qcow2", Format: QCOW2, Backing: []string{"/template", "/base"}}},
	}
}

func TestCheck(t *testing.T) {
	if err := goodSpec().Check(); err != nil {
		t.Fatalf("Check of a good spec = %v", err)
	}
	tests := []struct {
		name string
		kind errkind.Kind
		edit func(*Spec)
	}{
		{"no CPU", errkind.Usage, func(s *Spec) { s.VCPUs = 0 }},
		{"negative CPUs", errkind.Usage, func(s *Spec) { s.VCPUs = -1 }},
		{"absurd CPUs", errkind.Usage, func(s *Spec) { s.VCPUs = 100000 }},
		{"no memory", errkind.Usage, func(s *Spec) { s.MemoryBytes = 0 }},
		{"negative memory", errkind.Usage, func(s *Spec) { s.MemoryBytes = -1 << 30 }},
		{"absurd memory", errkind.Usage, func(s *Spec) { s.MemoryBytes = 1 << 60 }},
		{"odd memory", errkind.Usage, func(s *Spec) { s.MemoryBytes = 64<<20 + 1 }},
		{"root", errkind.Internal, func(s *Spec) { s.UID = 0 }},
		{"no ID", errkind.Internal, func(s *Spec) { s.ID = "" }},
		{"relative kernel", errkind.Internal, func(s *Spec) { s.Kernel = "vmlinux" }},
		{"relative metrics", errkind.Internal, func(s *Spec) { s.Metrics = "metrics.json" }},
		{"relative cgroup", errkind.Internal, func(s *Spec) { s.Cgroup = "banger" }},
		{"no initramfs", errkind.Internal, func(s *Spec) { s.Initrd = "" }},
		{"long socket", errkind.Internal, func(s *Spec) { s.APISock = "/" + strings.Repeat("x", MaxSocketPath) }},
		{"argument of two words", errkind.Internal, func(s *Spec) { s.Cmdline = []string{"a b"} }},
		{"long serial", errkind.Internal, func(s *Spec) { s.Disks[0].Serial = strings.Repeat("x", 21) }},
		{"serial with an option", errkind.Internal, func(s *Spec) { s.Disks[0].Serial = "a,b=c" }},
		{"equal serials", errkind.Internal, func(s *Spec) { s.Disks = append(s.Disks, s.Disks[0]) }},
		{"unknown format", errkind.Internal, func(s *Spec) { s.Disks[0].Format = "vmdk" }},
		{"raw over a base", errkind.Internal, func(s *Spec) { s.Disks[0].Format = Raw }},
		{"relative base", errkind.Internal, func(s *Spec) { s.Disks[0].Backing = []string{"base"} }},
		{"no disk path", errkind.Internal, func(s *Spec) { s.Disks[0].Path = "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := goodSpec()
			tt.edit(&s)
			if err := s.Check(); err == nil || errkind.Of(err) != tt.kind {
				t.Errorf("Check = %v of kind %q, want one of kind %q", err, errkind.Of(err), tt.kind)
			}
		})
	}
}
