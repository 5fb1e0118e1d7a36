package daemon_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a daemon on w that serves until the returned function is called.
func open(t *testing.T, w *daemontest.World, p config.Paths) (c *client.Client, stop func()) {
	t.Helper()
	d, err := daemon.Open(context.Background(), daemon.Options{
		Paths: p, Config: daemontest.Config(), Mechanisms: w.Mechanisms, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.Serve(context.Background()) }()
	c = client.New(p.Socket())
	return c, func() {
		t.Helper()
		d.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		c.Close()
	}
}

func create(t *testing.T, c *client.Client, name string) *api.VM {
	t.Helper()
	st, err := c.VM.Create(context.Background(), connect.NewRequest(&api.CreateRequest{Spec: &api.Spec{Name: name}}))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var v *api.VM
	for st.Receive() {
		v = st.Msg().GetVm()
	}
	if st.Err() != nil || v == nil {
		t.Fatalf("create %s: %v, %v", name, v, st.Err())
	}
	return v
}

// A brief status leaves out what would have to be looked for.
func TestBriefStatus(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	w.Net.SetObstacles([]network.Obstacle{{What: "chain x", Hint: "nft it"}})
	c, stop := open(t, w, p)
	defer stop()
	for brief, want := range map[bool]int{true: 0, false: 1} {
		s, err := c.Daemon.Status(t.Context(), connect.NewRequest(&api.StatusRequest{Brief: brief}))
		if err != nil || len(s.Msg.Warnings) != want {
			t.Errorf("Status, brief %t = %v, %v, want %d warnings", brief, s, err, want)
		}
	}
}

// One daemon at a time; what it leaves when it ends is what the next needs.
func TestOpenAndClose(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	if _, err := daemon.Open(context.Background(), daemon.Options{
		Paths: p, Config: daemontest.Config(), Mechanisms: w.Mechanisms, Log: slog.New(slog.DiscardHandler),
	}); !errors.Is(err, daemon.ErrLocked) {
		t.Errorf("a second daemon: %v", err)
	}
	s, err := c.Daemon.Status(context.Background(), connect.NewRequest(&api.StatusRequest{}))
	if err != nil || s.Msg.Root != p.Root || s.Msg.Pid != int32(os.Getpid()) {
		t.Errorf("status: %v, %v", s, err)
	}
	for path, mode := range map[string]fs.FileMode{p.Socket(): 0o660, p.SocketDir(): 0o750, p.State: 0o711, p.Database(): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode().Perm(), err, mode)
		}
	}
	stop()
	if _, err := os.Stat(p.Run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run directory is left: %v", err)
	}
}

func TestMachinesOutliveTheDaemon(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	v := create(t, c, "web")
	stop()
	if got := w.VMM.Processes(); len(got) != 1 || got[0] != v.Id {
		t.Fatalf("processes after the daemon's end: %v", got)
	}
	c, stop = open(t, w, p)
	defer stop()
	got, err := c.VM.Show(context.Background(), connect.NewRequest(&api.ShowRequest{Vm: "web"}))
	if err != nil || got.Msg.Vm.State != "running" || got.Msg.Vm.Handles.GetPid() != v.Handles.GetPid() {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	if _, err := c.VM.Delete(context.Background(), connect.NewRequest(&api.DeleteRequest{Vm: "web"})); err != nil {
		t.Error(err)
	}
	if got := w.VMM.Processes(); len(got) != 0 {
		t.Errorf("processes after delete: %v", got)
	}
}

// runStream begins a run and waits for the command's first output.
func runStream(t *testing.T, ctx context.Context, c *client.Client, script string) *connect.BidiStreamForClient[api.RunRequest, api.RunResponse] {
	t.Helper()
	st := c.VM.Run(ctx)
	err := st.Send(&api.RunRequest{Msg: &api.RunRequest_Start{Start: &api.RunStart{
		Ephemeral: true, Command: &wire.ExecStart{Argv: []string{"sh", "-c", script}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := st.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(r.GetExec().GetStdout()), "up") {
			return st
		}
	}
}

// An ephemeral machine goes with its caller, and with the daemon.
func TestEphemeralIsLeased(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	ctx, cancel := context.WithCancel(context.Background())
	runStream(t, ctx, c, "echo up; sleep 1000")
	cancel()
	gone := func() bool {
		l, err := c.VM.List(context.Background(), connect.NewRequest(&api.ListRequest{}))
		return err == nil && len(l.Msg.Vms) == 0 && len(w.VMM.Processes()) == 0
	}
	for deadline := time.Now().Add(10 * time.Second); !gone(); {
		if time.Now().After(deadline) {
			t.Fatal("the machine outlives its caller")
		}
	}
	st := runStream(t, context.Background(), c, "echo up; sleep 1000")
	stop()
	if got := w.VMM.Processes(); len(got) != 0 {
		t.Errorf("the machine outlives the daemon that leased it: %v", got)
	}
	if _, err := st.Receive(); !errors.Is(err, api.ErrLost) {
		t.Errorf("the caller is told %v", err)
	}
	_ = st.CloseResponse()
}

// What cannot be sent is refused at once; it used to wait for an answer for
// ever.
func TestCommandThatIsNoUTF8(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	defer stop()
	create(t, c, "web")
	bad := client.Start{Argv: []string{"echo", "\xff"}}
	if _, err := c.Exec(context.Background(), "web", bad); errkind.Of(err) != errkind.Usage {
		t.Errorf("Exec = %v", err)
	}
	if _, err := c.Run(context.Background(), client.Machine{Spec: &api.Spec{}, Ephemeral: true}, bad); errkind.Of(err) != errkind.Usage {
		t.Errorf("Run = %v", err)
	}
}

// A machine that ends under a command says why, in words, and the next command
// finds that recorded.
func TestMachineEndsUnderACommand(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	defer stop()
	v := create(t, c, "web")
	cmd, err := c.Exec(context.Background(), "web", client.Start{Argv: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := cmd.Receive(); err != nil || !e.Started {
		t.Fatalf("%+v, %v", e, err)
	}
	w.VMM.PowerOff(v.Id)
	for err == nil {
		_, err = cmd.Receive()
	}
	if !strings.Contains(err.Error(), "ended while the command ran: the guest powered off") {
		t.Errorf("the command is told %v", err)
	}
	got, err := c.VM.Show(context.Background(), connect.NewRequest(&api.ShowRequest{Vm: "web"}))
	if err != nil || got.Msg.Vm.State == "running" {
		t.Errorf("right after: %v, %v", got.Msg.Vm.State, err)
	}
}

func TestBrokenDatabaseIsNamed(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	if err := os.MkdirAll(p.State, 0o711); err != nil {
		t.Fatal(err)
	}
	garbage := []byte(strings.Repeat("no database ", 1000))
	if err := os.WriteFile(p.Database(), garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := daemon.Open(context.Background(), daemon.Options{
		Paths: p, Config: daemontest.Config(), Mechanisms: w.Mechanisms, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), p.Database()) || len(errkind.Hints(err)) == 0 {
		t.Errorf("Open = %v, hints %q", err, errkind.Hints(err))
	}
	if kept, rerr := os.ReadFile(p.Database()); rerr != nil || string(kept) != string(garbage) {
		t.Errorf("the file was changed: %v", rerr)
	}
}
