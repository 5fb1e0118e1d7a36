package lifecycle_test

import (
	"context"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func TestRefused(t *testing.T) {
	l := newLife(t)
	l.create("taken", false)
	for _, tt := range []struct {
		r    lifecycle.Request
		kind errkind.Kind
		want string
	}{
		{lifecycle.Request{Name: "Web"}, errkind.Usage, "no name"},
		{lifecycle.Request{Name: "taken"}, errkind.Conflict, "exists already"},
		{lifecycle.Request{Spec: vm.Spec{Image: "tniy"}}, errkind.NotFound, "tiny"},
		{lifecycle.Request{Spec: vm.Spec{Image: "../x"}}, errkind.Usage, "no name"},
		{lifecycle.Request{Spec: vm.Spec{Kernel: "none"}}, errkind.NotFound, "none"},
		{lifecycle.Request{Spec: vm.Spec{Driver: "none"}}, errkind.Usage, "unknown driver"},
		{lifecycle.Request{Spec: vm.Spec{VCPUs: 5}}, errkind.Usage, "1 to 4"},
		{lifecycle.Request{Spec: vm.Spec{VCPUs: -1}}, errkind.Usage, "1 to 4"},
		{lifecycle.Request{Spec: vm.Spec{MemoryBytes: 9 << 30}}, errkind.Usage, "64M to 8G"},
		{lifecycle.Request{Spec: vm.Spec{MemoryBytes: -1 << 20}}, errkind.Usage, "64M to 8G"},
		{lifecycle.Request{Spec: vm.Spec{MemoryBytes: 1<<30 + 1}}, errkind.Usage, "memory of 1073741825 bytes: it takes whole megabytes"},
		{lifecycle.Request{Spec: vm.Spec{DiskBytes: 1 << 60}}, errkind.Usage, "16M to 100G"},
	} {
		_, err := l.Create(context.Background(), tt.r, nobody)
		if errkind.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Create(%+v) = %v (%s), want %q (%s)", tt.r, err, errkind.Of(err), tt.want, tt.kind)
		}
	}
	l.w.Host.SetSpare(1 << 20)
	l.restart()
	if _, err := l.Create(context.Background(), lifecycle.Request{}, nobody); errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), "1M left") {
		t.Errorf("on a full disk: %v", err)
	}
}

// A name may look like the beginning of another machine's id.
func TestNameThatLooksLikeAnID(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	for _, n := range []int{1, 2, 8} {
		name := string(v.ID)[:n]
		if _, err := l.Create(context.Background(), lifecycle.Request{Name: name}, nobody); err != nil {
			t.Errorf("name %q beside machine %s: %v", name, v.ID, err)
		}
	}
}
