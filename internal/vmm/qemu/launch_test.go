package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// sockDir returns a directory whose path is short enough for sockets.
func sockDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "qemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// said returns what a log says from an offset on.
func said(log string, from int64) func() string {
	return func() string { return vmmproc.LastWords(log, from) }
}

func TestAttachChecksTheListener(t *testing.T) {
	sock := filepath.Join(sockDir(t), "api.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p := &pretendQMP{Conn: conn, answer: func(string) string { return status("running") }}
			go p.serve()
		}
	}()
	d := New(Options{})
	m, err := d.Attach(t.Context(), vmm.Spec{APISock: sock, UID: uint32(os.Geteuid())})
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	if m.PID() != os.Getpid() {
		t.Errorf("PID = %d, want that of who listens, %d", m.PID(), os.Getpid())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Attach(t.Context(), vmm.Spec{APISock: sock, UID: uint32(os.Geteuid()) + 1}); err == nil {
		t.Error("Attach to another user's socket succeeded")
	}
	if err := vmmproc.CheckUnused(t.Context(), sock); errkind.Of(err) != errkind.Conflict {
		t.Errorf("CheckUnused = %v, want an error of kind conflict", err)
	}
}

// A VMM that ends at once is told from one that is slow, in its own words.
func TestConnectToWhatEnds(t *testing.T) {
	dir := sockDir(t)
	log := filepath.Join(dir, "vmm.log")
	if err := os.WriteFile(log, []byte("an earlier life\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	words, err := vmmproc.PrepareLog(log, os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	c, err := vmmproc.Start(hostcmd.Detached{Argv: []string{"/bin/sh", "-c", "echo no such kernel >&2; exit 3"}, Dir: dir, LogFile: words.File})
	if err != nil {
		t.Fatal(err)
	}
	_, err = connect(t.Context(), c, vmm.Spec{APISock: filepath.Join(dir, "api.sock")}, 0)
	if !errors.Is(err, vmmproc.ErrExited) {
		t.Errorf("connect = %v, want that it ended", err)
	}
	if err := c.Explain(err, said(log, words.From)); err == nil || err.Error() != "exit status 3: no such kernel" {
		t.Errorf("Explain = %v", err)
	}
}

// QEMU listens before it looks at the kernel: the connection may break first.
func TestConnectionBreaksBeforeTheEnd(t *testing.T) {
	dir := sockDir(t)
	sock, log := filepath.Join(dir, "api.sock"), filepath.Join(dir, "vmm.log")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The child ends once the connection was made and broken.
	c, err := vmmproc.Start(hostcmd.Detached{Argv: []string{"/bin/sh", "-c", "until [ -e broken ]; do :; done; echo no such kernel; exit 1"}, Dir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
		if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}()
	_, err = connect(t.Context(), c, vmm.Spec{APISock: sock, UID: uint32(os.Geteuid())}, 0)
	if err := c.Explain(err, said(log, 0)); err == nil || err.Error() != "exit status 1: no such kernel" {
		t.Errorf("Explain = %v", err)
	}
}

func TestConnectCancelled(t *testing.T) {
	dir := sockDir(t)
	c, err := vmmproc.Start(hostcmd.Detached{Argv: []string{"/bin/sh", "-c", "exec sleep 1000"}, Dir: dir, Log: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p, err := os.FindProcess(c.PID)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		<-c.Gone() // it is reaped although nobody waits for it
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = connect(ctx, c, vmm.Spec{APISock: filepath.Join(dir, "api.sock")}, 0)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("connect = %v, want that it was cancelled", err)
	}
	if err := c.Explain(err, said(filepath.Join(dir, "log"), 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("Explain of one that lives = %v", err)
	}
}

func TestLaunchWithoutQEMU(t *testing.T) {
	dir := sockDir(t)
	s := testSpec()
	s.Dir, s.APISock, s.AgentSock = dir, dir+"/api.sock", dir+"/agent.sock"
	s.ConsoleLog, s.VMMLog = dir+"/console.log", dir+"/vmm.log"
	_, err := New(Options{Program: "no-such-qemu"}).Launch(t.Context(), s)
	if errkind.Of(err) != errkind.Host || strings.Join(errkind.Hints(err), ",") != installHint {
		t.Errorf("Launch = %v, hints %q", err, errkind.Hints(err))
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("Launch left %v (%v)", es, err)
	}
}

// The VMM's user may put another file at the log's name once it was checked:
// what QEMU says goes to the file that was.
func TestVMMLogIsOpenedOnce(t *testing.T) {
	dir := sockDir(t)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := vmm.Spec{ConsoleLog: dir + "/console.log", VMMLog: dir + "/vmm.log", UID: uint32(os.Geteuid())}
	_, words, err := prepareLogs(s)
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	if err := errors.Join(os.Rename(s.VMMLog, s.VMMLog+".checked"), os.Symlink(secret, s.VMMLog)); err != nil {
		t.Fatal(err)
	}
	c, err := vmmproc.Start(hostcmd.Detached{Argv: []string{"/bin/sh", "-c", "echo no such kernel >&2"}, Dir: dir, LogFile: words.File})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Gone()
	for path, want := range map[string]string{secret: "secret", s.VMMLog + ".checked": "no such kernel\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), got, err, want)
		}
	}
	if said := vmmproc.LastWords(s.VMMLog, words.From); said != "" {
		t.Errorf("LastWords followed a link: %q", said)
	}
}

// A VMM that was broken into may put directories where its sockets were.
func TestCleanUpOfPlantedDirectories(t *testing.T) {
	dir := sockDir(t)
	s := vmm.Spec{APISock: dir + "/api.sock", AgentSock: dir + "/agent.sock"}
	for _, path := range []string{s.APISock, s.AgentSock} {
		if err := os.MkdirAll(filepath.Join(path, "deep", "er"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := New(Options{}).CleanUp(t.Context(), s); err != nil {
		t.Errorf("CleanUp = %v", err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("CleanUp left %v (%v)", es, err)
	}
}

func TestCleanUp(t *testing.T) {
	dir := sockDir(t)
	d := New(Options{})
	s := vmm.Spec{APISock: dir + "/api.sock", AgentSock: dir + "/agent.sock"}
	if err := os.WriteFile(s.AgentSock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.CleanUp(t.Context(), s); err != nil {
			t.Errorf("CleanUp = %v", err)
		}
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("CleanUp left %v (%v)", es, err)
	}
}
