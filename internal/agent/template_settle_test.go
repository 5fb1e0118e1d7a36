package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"banger/internal/guest/wire"
)

func settleTemplate(t *testing.T, a wire.AgentServiceClient) error {
	_, err := a.Settle(testContext(t), connect.NewRequest(&wire.SettleRequest{}))
	return err
}

const (
	askRunning = "is-system-running --wait"
	askSSH     = "is-active ssh.socket sshd.socket ssh.service sshd.service"
)

// TestSettle goes a template's whole way, in which each call is made twice.
func TestSettle(t *testing.T) {
	sys := &fakeSystem{active: []string{"ssh.service", "ssh.socket", "cron.service"}}
	a := dialTemplate(t, sys)
	if err := settleTemplate(t, a); err != nil {
		t.Fatal(err)
	}
	if err := settleTemplate(t, a); err != nil {
		t.Fatal(err)
	}
	want := []string{askRunning, askSSH, "stop ssh.socket ssh.service", "quiet", "hurry true", "sync", askRunning, askSSH, "quiet", "hurry true", "sync"}
	if d := cmp.Diff(want, sys.take()); d != "" {
		t.Error(d)
	}
	if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); err != nil {
		t.Fatal(err)
	}
	sys.take()
	for range 2 {
		if _, err := a.Finish(testContext(t), connect.NewRequest(&wire.FinishRequest{})); err != nil {
			t.Fatal(err)
		}
	}
	want = []string{
		"hurry false", "journal 77 0a", "try-restart systemd-journald.service", "start ssh.socket ssh.service",
		"hurry false",
	}
	if d := cmp.Diff(want, sys.take()); d != "" {
		t.Error(d)
	}
}

// TestSettleRuns: the command that makes the next ones quick is really run.
func TestSettleRuns(t *testing.T) {
	st := &rehearsal{ctx: t.Context()}
	o := templateOptions(&fakeSystem{})
	o.Role, o.Log = "service", testLog(t)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.exec(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if x := st.exit; x == nil || x.Code != 0 {
		t.Errorf("exit %v", x)
	}
}

// Without systemd there is nothing to wait for, and nothing that was started.
func TestSettleWithoutSystemd(t *testing.T) {
	sys := &fakeSystem{none: true}
	a := dialTemplate(t, sys)
	if err := settleTemplate(t, a); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Finish(testContext(t), connect.NewRequest(&wire.FinishRequest{})); err != nil {
		t.Fatal(err)
	}
	if did := sys.take(); did[0] != "quiet" || did[len(did)-1] != "journal 77 0a" {
		t.Errorf("did %q", did)
	}
}

func TestAwaitSystem(t *testing.T) {
	sys := &fakeSystem{states: []string{"", "starting", "degraded", "starting"}}
	if err := awaitSystem(testContext(t), sys); err != nil || len(sys.states) != 1 {
		t.Errorf("awaitSystem = %v, %q not asked for", err, sys.states)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	sys.states = []string{"maintenance", "maintenance", "maintenance"}
	if err := awaitSystem(ctx, sys); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("awaitSystem = %v, want that the time is up", err)
	}
	sys = &fakeSystem{}
	sys.set("is-system-running", errors.New("no systemctl"))
	if err := awaitSystem(testContext(t), sys); err == nil {
		t.Error("awaitSystem without systemctl succeeded")
	}
}

// TestSettleFails: a template whose SSH server may run is not frozen.
func TestSettleFails(t *testing.T) {
	sys := &fakeSystem{active: []string{"sshd.service"}}
	sys.set("stop", errors.New("no stop"))
	a := dialTemplate(t, sys)
	if err := settleTemplate(t, a); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("Settle = %v", err)
	}
	sys.set("stop", nil)
	if err := settleTemplate(t, a); err != nil {
		t.Errorf("then Settle = %v", err)
	}
}

// TestFinishFails lets each part of it fail: the others are done, and it alone
// is done again.
func TestFinishFails(t *testing.T) {
	for op, again := range map[string][]string{
		"journal":     {"hurry false", "journal 77 0a", "try-restart systemd-journald.service"},
		"try-restart": {"hurry false", "journal 77 0a", "try-restart systemd-journald.service"},
		"start":       {"hurry false", "start ssh.service"},
	} {
		sys := &fakeSystem{active: []string{"ssh.service"}}
		a := dialTemplate(t, sys)
		if err := settleTemplate(t, a); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); err != nil {
			t.Fatal(err)
		}
		sys.take()
		sys.set(op, errors.New("no "+op))
		if _, err := a.Finish(testContext(t), connect.NewRequest(&wire.FinishRequest{})); connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("%s: Finish = %v", op, err)
		}
		want := []string{"hurry false", "journal 77 0a", "try-restart systemd-journald.service", "start ssh.service"}
		if d := cmp.Diff(want, sys.take()); d != "" {
			t.Errorf("%s: %s", op, d)
		}
		sys.set(op, nil)
		if _, err := a.Finish(testContext(t), connect.NewRequest(&wire.FinishRequest{})); err != nil {
			t.Errorf("%s: then Finish = %v", op, err)
		}
		if d := cmp.Diff(again, sys.take()); d != "" {
			t.Errorf("%s, again: %s", op, d)
		}
	}
}
