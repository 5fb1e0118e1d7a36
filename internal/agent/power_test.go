package agent

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

func TestPower(t *testing.T) {
	for action, reboot := range map[wire.PowerRequest_Action]bool{
		wire.PowerRequest_ACTION_POWER_OFF: false,
		wire.PowerRequest_ACTION_REBOOT:    true,
	} {
		calls := make(chan bool, 9)
		a := dialAgent(t, ServeOptions{Power: func(reboot bool) { calls <- reboot }})
		for range 3 { // asked again, it ends once
			if _, err := a.Power(testContext(t), connect.NewRequest(&wire.PowerRequest{Action: action})); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-calls; got != reboot || len(calls) != 0 {
			t.Errorf("%v: reboot %v, and %d more", action, got, len(calls))
		}
	}
	a := dialAgent(t, ServeOptions{Power: func(bool) { t.Error("ended") }})
	for _, action := range []wire.PowerRequest_Action{wire.PowerRequest_ACTION_UNSPECIFIED, 99} {
		if _, err := a.Power(testContext(t), connect.NewRequest(&wire.PowerRequest{Action: action})); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", action, err)
		}
	}
}

func TestInitSignal(t *testing.T) {
	for _, tt := range []struct {
		reboot, systemd bool
		want            syscall.Signal
	}{{false, false, syscall.SIGUSR2}, {true, false, syscall.SIGTERM}, {false, true, 38}, {true, true, 39}} {
		if got := initSignal(tt.reboot, tt.systemd); got != tt.want {
			t.Errorf("initSignal(%v, %v) = %d, want %d", tt.reboot, tt.systemd, got, tt.want)
		}
	}
}

func TestInfo(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	res, err := a.Info(testContext(t), connect.NewRequest(&wire.InfoRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	hostname, _ := os.Hostname()
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m := res.Msg
	if m.GetProtocol() != wire.Protocol || m.GetRole() != "service" || m.GetHostname() != hostname ||
		m.GetKernelRelease() != strings.TrimSpace(string(release)) || len(m.GetBootId()) != 36 || m.GetUptimeSeconds() <= 0 {
		t.Errorf("got %v", m)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(ServeOptions{Bundle: wire.Bundle{Token: "x"}, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, wire.ErrToken) {
		t.Errorf("got %v", err)
	}
}
