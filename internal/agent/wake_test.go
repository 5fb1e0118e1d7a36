package agent

import (
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

func TestWake(t *testing.T) {
	var set time.Time
	a := dialAgent(t, ServeOptions{SetClock: func(to time.Time) error { set = to; return nil }})
	want := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	if _, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: want.UnixNano()})); err != nil || !set.Equal(want) {
		t.Errorf("set to %v, %v", set, err)
	}
	if _, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("without a time: %v", err)
	}
}

// A machine that has got another name is told it once, by itself or with the first
// command, which sees it; a template has none of its own to change.
func TestWakeRenames(t *testing.T) {
	sys := &fakeSystem{}
	b := machineBundle()
	a := dialAgent(t, ServeOptions{Bundle: b, System: sys, SetClock: func(time.Time) error { return sys.do("clock") }})
	for _, tt := range []struct {
		name string
		want []string
	}{
		{"db", []string{"clock", "hostname db", "name db"}},
		{"db", []string{"clock"}},
		{"", []string{"clock"}},
	} {
		if _, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: 1, Hostname: tt.name})); err != nil {
			t.Fatal(err)
		}
		if did := sys.take(); !slices.Equal(did, tt.want) {
			t.Errorf("named %q: did %q, want %q", tt.name, did, tt.want)
		}
	}
	_, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: 1, Hostname: "no label"}))
	if did := sys.take(); connect.CodeOf(err) != connect.CodeInvalidArgument || !slices.Equal(did, []string{"clock"}) {
		t.Errorf("a name that is none: %v, did %q", err, did)
	}
	r := startRun(t, testContext(t), a, &wire.ExecStart{Argv: []string{"true"}, Cwd: "/", Wake: &wire.WakeRequest{UnixNs: 1, Hostname: "first"}})
	if x := r.end(t); x.GetCode() != 0 {
		t.Errorf("the command ended with %v", x)
	}
	if did := sys.take(); !slices.Equal(did, []string{"clock", "hostname first", "name first"}) {
		t.Errorf("with a command: did %q", did)
	}
	if _, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: 1, Hurry: true})); err != nil {
		t.Error(err)
	}
	if did := sys.take(); !slices.Equal(did, []string{"hurry true", "clock"}) {
		t.Errorf("in a hurry: did %q", did)
	}
	if _, err := a.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: 1, Hurry: true})); err != nil {
		t.Error(err)
	}
	if did := sys.take(); !slices.Equal(did, []string{"clock"}) {
		t.Errorf("in a hurry still: did %q", did)
	}
	of := dialTemplate(t, sys)
	if _, err := of.Wake(t.Context(), connect.NewRequest(&wire.WakeRequest{UnixNs: 1, Hostname: "web"})); err != nil {
		t.Error(err)
	}
	if did := sys.take(); len(did) != 1 {
		t.Errorf("a template: did %q", did)
	}
}
