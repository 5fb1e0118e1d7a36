package firecracker

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/vmm"
)

func TestPlan(t *testing.T) {
	s := fakeSpec(t)
	got, err := newPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	want := plan{
		machine: machineConfig{VCPUs: 2, MemoryMiB: 256},
		boot:    bootSource{s.Kernel, s.Initrd, strings.Join(kernelArgs, " ") + " net.ifnames=0"},
		drives: []drive{
			{ID: "disk0", Path: "root.raw", Cache: cacheWriteback},
			{ID: "disk1", Path: "work.raw", Cache: cacheWriteback},
			{ID: "disk2", Path: "/k/modules.ext4", ReadOnly: true, Cache: cacheUnsafe},
		},
		nics:    []networkInterface{{"net0", "b0123450123abcd", "02:ba:01:23:ab:cd"}},
		vsock:   vsockDevice{7, "run/agent.sock"},
		metrics: s.Metrics,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(plan{})); diff != "" {
		t.Errorf("newPlan (-want +got):\n%s", diff)
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*vmm.Spec)
		kind errkind.Kind
	}{
		"33 vCPUs":     {func(s *vmm.Spec) { s.VCPUs = 33 }, errkind.Usage},
		"long cmdline": {func(s *vmm.Spec) { s.Cmdline = []string{strings.Repeat("x", maxCmdline)} }, errkind.Usage},
		"no CID":       {func(s *vmm.Spec) { s.VsockCID = 2 }, errkind.Internal},
		"qcow2":        {func(s *vmm.Spec) { s.Disks[1].Format = vmm.QCOW2 }, errkind.Internal},
	} {
		s := fakeSpec(t)
		tt.edit(&s)
		if _, err := newPlan(s); err == nil || errkind.Of(err) != tt.kind {
			t.Errorf("%s: newPlan = %v of kind %q, want kind %q", name, err, errkind.Of(err), tt.kind)
		}
	}
}

func TestRelative(t *testing.T) {
	for _, tt := range [][3]string{
		{"/s/a", "/s/a/root", "root"}, {"/s/a/", "/s/a/b/root", "b/root"},
		{"/s/a", "/s/ab/root", "/s/ab/root"}, {"/s/a", "root", "root"}, {"/s/a", "/dev/mapper/x", "/dev/mapper/x"},
	} {
		if got := relative(tt[0], tt[1]); got != tt[2] {
			t.Errorf("relative(%q, %q) = %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestInstanceID(t *testing.T) {
	if got := instanceID("a_b/" + strings.Repeat("x", 99)); len(got) != maxID || !strings.HasPrefix(got, "a-b-x") {
		t.Errorf("instanceID = %q", got)
	}
}

// The signature is what stands on the command line.
func TestSignature(t *testing.T) {
	s := fakeSpec(t)
	sig := New(Options{}).Signature(vmm.Spec{APISock: s.APISock, UID: s.UID})
	args := arguments(s)
	i := slices.Index(args, sig.Arg)
	if i < 0 || args[i+1] != sig.Next || sig.UID != s.UID || sig.Exe != Name {
		t.Errorf("Signature = %+v", sig)
	}
}
