package firecracker

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/hostcmd"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// fakeEnv makes this test binary play a Firecracker: "MODE N" goes wrong by MODE
// at the N-th call of its API, from 1 on.
const fakeEnv = "BANGER_FAKE_FIRECRACKER"

func TestMain(m *testing.M) {
	if how := os.Getenv(fakeEnv); how != "" {
		playFirecracker(how)
	}
	os.Exit(m.Run())
}

// playFirecracker serves the API at the socket that the command line names.
func playFirecracker(how string) {
	var mode string
	var at, calls int
	fmt.Sscan(how, &mode, &at)
	l, err := net.Listen("unix", os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	state := stateNotStarted
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if calls++; err != nil || calls == at {
			misbehave(w, mode)
			return
		}
		if r.Method == http.MethodGet {
			json.NewEncoder(w).Encode(instanceInfo{AppName: "Firecracker", State: state})
			return
		}
		if strings.Contains(string(body), string(actionStart)) {
			state = stateRunning
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func misbehave(w http.ResponseWriter, mode string) {
	switch mode {
	case "die":
		fmt.Fprintln(os.Stderr, "2026-01-01T00:00:00.0 [a1:fc_api:ERROR] out of luck")
		os.Exit(3)
	case "refuse":
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(fault{"not\nlike this"})
	case "hang":
		select {}
	case "garbage":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Write([]byte("SSH-2.0\r\n\r\n"))
			conn.Close()
		}
	}
}

// fakeSpec returns a machine of this user's, in a directory of its own.
func fakeSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return vmm.Spec{
		ID: "a1b2", Dir: dir, APISock: dir + "/api.sock", AgentSock: dir + "/agent.sock",
		ConsoleLog: dir + "/console.log", VMMLog: dir + "/vmm.log", Metrics: dir + "/metrics.json",
		Kernel: dir + "/vmlinux", Initrd: dir + "/initrd", Cmdline: []string{"net.ifnames=0"},
		VCPUs: 2, MemoryBytes: 256 << 20, VsockCID: 7, UID: uint32(os.Geteuid()),
		Disks: []vmm.Disk{
			{Serial: "root", Path: dir + "/root.raw", Format: vmm.Raw},
			{Serial: "work", Path: "work.raw", Format: vmm.Raw},
			{Serial: "modules", Path: "/k/modules.ext4", Format: vmm.Raw, ReadOnly: true},
		},
		NICs: []vmm.NIC{{Tap: "b0123450123abcd", MAC: "02:ba:01:23:ab:cd"}},
	}
}

// startFake starts a pretend Firecracker, which is killed when the test ends.
func startFake(t *testing.T, s vmm.Spec, how string) (*vmmproc.Child, plan, files) {
	t.Helper()
	p, err := newPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	f, err := prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := vmmproc.Start(hostcmd.Detached{
		Argv: append([]string{self}, arguments(s)...), Dir: s.Dir, Env: []string{fakeEnv + "=" + how},
		Output: f.console.File, LogFile: f.words.File,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killFake(t, child) })
	return child, p, f
}

func killFake(t *testing.T, c *vmmproc.Child) {
	t.Helper()
	p, err := os.FindProcess(c.PID)
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Kill() // it may have ended
	<-c.Gone()
}

// hasten makes a client's calls time out soon.
func hasten(t *testing.T) {
	t.Helper()
	before := testOnlyScale
	testOnlyScale = 0.02
	t.Cleanup(func() { testOnlyScale = before })
}

// Whatever goes wrong at whichever call ends the launch with one line that says
// so, and in time.
func TestLaunchGoesWrong(t *testing.T) {
	hasten(t)
	calls := len(fakeSpec(t).Disks) + len(fakeSpec(t).NICs) + 6
	for mode, want := range map[string]string{
		"die":     "exit status 3: out of luck",
		"refuse":  "not;like this",
		"hang":    "no answer in time",
		"garbage": "no answer: ",
	} {
		for at := 1; at <= calls; at++ {
			if mode == "garbage" && at > 1 {
				break // each takes as long as a VMM has to end
			}
			t.Run(fmt.Sprintf("%s at call %d", mode, at), func(t *testing.T) {
				t.Parallel()
				s := fakeSpec(t)
				child, p, _ := startFake(t, s, fmt.Sprintf("%s %d", mode, at))
				m, err := boot(t.Context(), child, s, p, 0)
				if err == nil {
					m.Close()
					t.Fatal("boot succeeded")
				}
				if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("boot = %v, want %q", err, want)
				}
				if err := New(Options{}).CleanUp(t.Context(), s); err != nil {
					t.Error(err)
				}
				if left, err := filepath.Glob(s.Dir + "/*"); err != nil || len(left) != 3 {
					t.Errorf("left are %q, %v, want the logs and metrics", left, err)
				}
			})
		}
	}
}

// A machine of the fake's is launched, attached to, paused and seen to end.
func TestLaunchAndAttach(t *testing.T) {
	s := fakeSpec(t)
	child, p, f := startFake(t, s, "well 0")
	d := New(Options{})
	if err := waitFor(t, s.APISock); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Attach(t.Context(), s); err == nil || !strings.Contains(err.Error(), "never started") {
		t.Errorf("Attach before the start = %v", err)
	}
	m, err := boot(t.Context(), child, s, p, f.console.From)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	other := s
	other.UID++
	if _, err := d.Attach(t.Context(), other); err == nil {
		t.Error("Attach to another user's socket succeeded")
	}
	a, err := d.Attach(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	want := vmm.Endpoint{Kind: vmm.VsockUnix, Path: s.AgentSock, Port: 42070}
	if a.PID() != child.PID || a.Agent() != want {
		t.Errorf("PID = %d, Agent = %+v", a.PID(), a.Agent())
	}
	if st, err := a.Status(t.Context()); err != nil || st != vmm.Running {
		t.Errorf("Status = %q, %v", st, err)
	}
	if err := a.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	<-a.Changed()
	if err := os.WriteFile(s.VMMLog, []byte("2026-01-01T00:00:00.0 [a1:main:INFO] Firecracker exiting successfully. exit_code=0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	killFake(t, child)
	<-a.Done()
	if a.Exit() != vmm.ExitEnded {
		t.Errorf("Exit = %q", a.Exit())
	}
	if _, err := a.Status(t.Context()); err == nil {
		t.Error("Status of a machine that is done succeeded")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// waitFor waits until somebody listens at a socket.
func waitFor(t *testing.T, socket string) error {
	t.Helper()
	conn, err := vmmproc.DialUntil(t.Context(), socket)
	if err == nil {
		conn.Close()
	}
	return err
}

// A call that hangs ends with the machine's connection.
func TestCloseEndsCalls(t *testing.T) {
	s := fakeSpec(t)
	child, _, f := startFake(t, s, "hang 1")
	m, err := connect(t.Context(), child, s, f.console.From)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := m.Status(t.Context())
		failed <- err
	}()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-failed:
		if err == nil {
			t.Error("Status after Close succeeded")
		}
	case <-time.After(5 * time.Second):
		t.Error("Status goes on after Close")
	}
}
