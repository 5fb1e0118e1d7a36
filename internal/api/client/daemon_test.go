package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/errkind"
)

// Run with this in its environment, the test binary is a daemon; the value
// says what kind of one.
const actAs = "BANGER_TEST_DAEMON"

func TestMain(m *testing.M) {
	if mode := os.Getenv(actAs); mode != "" {
		os.Exit(daemon(mode, os.Args[2]))
	}
	os.Exit(m.Run())
}

// daemon is bangerd as far as its start and end go.
func daemon(mode, root string) int {
	p := testPaths(root)
	switch mode {
	case "fail":
		fmt.Fprintln(os.Stderr, "time=now level=INFO msg=something")
		fmt.Fprintln(os.Stderr, "bangerd: program qemu is not installed\nhint: apt-get install -y qemu")
		return 5
	case "die":
		return 3
	case "late": // to look at the lock
		if err := os.WriteFile(filepath.Join(root, "late"), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
			panic(err)
		}
		time.Sleep(time.Minute)
	}
	lock, err := os.OpenFile(p.Lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return exitLocked
	}
	if err := os.MkdirAll(p.SocketDir(), 0o750); err != nil {
		panic(err)
	}
	os.Remove(p.Socket())
	if mode == "slow" { // recovery takes a while
		time.Sleep(200 * time.Millisecond)
	}
	ln, err := net.Listen("unix", p.Socket()+".new")
	if err != nil {
		panic(err)
	}
	starts, err := os.OpenFile(filepath.Join(root, "starts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(starts, os.Getpid())
	if err := os.Rename(p.Socket()+".new", p.Socket()); err != nil {
		panic(err)
	}
	return serveStatus(ln, p, mode)
}

func serveStatus(ln net.Listener, p config.Paths, mode string) int {
	d := &statusServer{stop: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle(api.NewDaemonServiceHandler(d, connect.WithInterceptors(api.NewServerInterceptor(nil))))
	var proto http.Protocols
	proto.SetUnencryptedHTTP2(true)
	srv := http.Server{Handler: mux, Protocols: &proto}
	go srv.Serve(ln)
	// Whatever becomes of the test, this process ends.
	select {
	case <-d.stop:
	case <-time.After(time.Minute):
		return 1
	}
	os.Remove(p.Socket())
	if mode == "slow" { // to end
		time.Sleep(200 * time.Millisecond)
	}
	srv.Shutdown(context.Background())
	return 0
}

type statusServer struct {
	api.UnimplementedDaemonServiceHandler
	stop chan struct{}
}

func (d *statusServer) Status(context.Context, *connect.Request[api.StatusRequest]) (*connect.Response[api.StatusResponse], error) {
	return connect.NewResponse(&api.StatusResponse{Pid: int32(os.Getpid()), Version: os.Getenv("GREETING")}), nil
}

func (d *statusServer) Shutdown(context.Context, *connect.Request[api.ShutdownRequest]) (*connect.Response[api.ShutdownResponse], error) {
	close(d.stop)
	return connect.NewResponse(&api.ShutdownResponse{}), nil
}

func testPaths(root string) config.Paths {
	p, err := config.NewPaths(root)
	if err != nil {
		panic(err)
	}
	p.Run = filepath.Join(root, "run") // in need of no rights
	return p
}

// options returns those of a daemon that is not there yet, and is stopped when
// the test ends.
func options(t *testing.T, mode string) Options {
	t.Helper()
	root, err := os.MkdirTemp("", "bgr") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Paths: testPaths(root), Bangerd: exe, Env: []string{actAs + "=" + mode, "GREETING=hello", "GORACE=atexit_sleep_ms=0"}, Root: true}
	t.Cleanup(func() {
		if err := Stop(context.Background(), o.Paths); err != nil && !IsNone(err) {
			t.Error(err)
		}
		os.RemoveAll(root)
	})
	return o
}

func starts(t *testing.T, o Options) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.Paths.Root, "starts"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestEnsureAndStop(t *testing.T) {
	o := options(t, "slow")
	if err := probe(t.Context(), o.Paths); !IsNone(err) {
		t.Fatalf("before the start: %v", err)
	}
	if err := Stop(t.Context(), o.Paths); !IsNone(err) {
		t.Fatalf("stop of none: %v", err)
	}
	for range 2 {
		if err := Ensure(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	c := New(o.Paths.Socket())
	defer c.Close()
	st, err := c.Daemon.Status(t.Context(), connect.NewRequest(&api.StatusRequest{}))
	if err != nil || st.Msg.Version != "hello" {
		t.Errorf("status %v, %v", st, err)
	}
	c.Close()
	if n := starts(t, o); len(n) != 1 {
		t.Errorf("%d daemons were started", len(n))
	}
	pid, _ := strconv.Atoi(starts(t, o)[0])
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("the daemon's session is %d, %v, want %d", sid, err, pid)
	}
	if err := Stop(t.Context(), o.Paths); err != nil {
		t.Fatal(err)
	}
	if err := probe(t.Context(), o.Paths); !IsNone(err) {
		t.Errorf("after stop: %v", err)
	}
}

// A daemon that was started for nothing, for another was quicker, has ended by the
// time that this is known: it would come up after that one was stopped.
func TestEnsureEndsLatecomer(t *testing.T) {
	o := options(t, "quick")
	late := o
	late.Env = append([]string{actAs + "=late"}, o.Env[1:]...)
	ensured := make(chan error, 1)
	go func() { ensured <- Ensure(t.Context(), late) }()
	var pid int
	for pid == 0 {
		<-time.After(5 * time.Millisecond)
		text, _ := os.ReadFile(filepath.Join(o.Paths.Root, "late"))
		pid, _ = strconv.Atoi(string(text))
	}
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := <-ensured; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the latecomer is there still: %v", err)
	}
	if n := starts(t, o); len(n) != 1 {
		t.Errorf("%d daemons were started", len(n))
	}
}

// Several callers at once start one daemon.
func TestEnsureAtOnce(t *testing.T) {
	o := options(t, "slow")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := Ensure(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := starts(t, o); len(n) != 1 {
		t.Errorf("%d daemons served", len(n))
	}
}

// A caller that comes while the daemon is on its way out gets the next one.
func TestEnsureWhileOneEnds(t *testing.T) {
	o := options(t, "slow")
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	c := New(o.Paths.Socket())
	defer c.Close()
	if _, err := c.Daemon.Shutdown(t.Context(), connect.NewRequest(&api.ShutdownRequest{})); err != nil {
		t.Fatal(err)
	}
	c.Close()
	for probe(t.Context(), o.Paths) == nil {
	}
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if n := starts(t, o); len(n) != 2 {
		t.Errorf("%d daemons served, want 2", len(n))
	}
}

// A socket that a killed daemon left behind is no daemon.
func TestEnsureAfterKill(t *testing.T) {
	o := options(t, "ok")
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(starts(t, o)[0])
	gone, err := watchProcess(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-gone
	if err := probe(t.Context(), o.Paths); !IsNone(err) {
		t.Errorf("a stale socket: %v", err)
	}
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureTellsWhyNot(t *testing.T) {
	o := options(t, "fail")
	// What earlier daemons said is nobody's news.
	must(t, os.MkdirAll(o.Paths.State, 0o700))
	must(t, os.WriteFile(o.Paths.DaemonLog(), []byte("bangerd: old news\nhint: old\n"), 0o600))
	err := Ensure(t.Context(), o)
	if errkind.Of(err) != errkind.Host || err.Error() != "program qemu is not installed" || !slices.Equal(errkind.Hints(err), []string{"apt-get install -y qemu"}) {
		t.Errorf("%v, kind %s, hints %q", err, errkind.Of(err), errkind.Hints(err))
	}
	o = options(t, "die")
	if err = Ensure(t.Context(), o); errkind.Of(err) != errkind.Internal || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a daemon without last words: %v", err)
	}
	o.Bangerd = filepath.Join(o.Paths.Root, "none")
	if err = Ensure(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a program: %v", err)
	}
	o.Root = false
	if err = Ensure(t.Context(), o); errkind.Of(err) != errkind.Host || !slices.Contains(errkind.Hints(err), "sudo banger daemon start") {
		t.Errorf("without root: %v", err)
	}
}

// The caller's end ends the waiting, not the daemon.
func TestEnsureCanceled(t *testing.T) {
	o := options(t, "ok")
	// Somebody has the lock and never serves.
	must(t, os.MkdirAll(o.Paths.State, 0o700))
	lock, err := os.OpenFile(o.Paths.Lock(), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	if pid, ok := holder(o.Paths.Lock()); !ok || pid != os.Getpid() {
		t.Errorf("holder of our lock is %d, %t", pid, ok)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Ensure(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a lock: %v", err)
	}
	must(t, lock.Close())
	if err := Ensure(t.Context(), o); err != nil {
		t.Errorf("after the lock is free: %v", err)
	}
}

// systemd-run that does not work is done without.
func TestSystemdRunFails(t *testing.T) {
	o := options(t, "ok")
	o.Systemd = true
	bin := t.TempDir()
	must(t, os.WriteFile(bin+"/systemd-run", []byte("#!/bin/sh\necho Failed to connect to bus >&2\nexit 1\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// With systemd the daemon is started in a scope of its own.
func TestSystemdRun(t *testing.T) {
	o := options(t, "ok")
	o.Systemd = true
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"$@\" >" + bin + "/args\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n"
	must(t, os.WriteFile(bin+"/systemd-run", []byte(script), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(bin + "/args")
	if err != nil || !strings.Contains(string(args), "--scope") || !strings.Contains(string(args), "--unit=banger-"+o.Paths.Tag) {
		t.Errorf("systemd-run got %s, %v", args, err)
	}
}

func TestFlocks(t *testing.T) {
	const lines = `1: POSIX  ADVISORY  WRITE 25392 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 708 fe:00:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 709 fe:00:77 0 EOF
3: FLOCK  ADVISORY  WRITE 0 fe:00:77 0 EOF
4: FLOCK  ADVISORY  WRITE 710 fe:00:177 0 EOF
garbage
5: FLOCK
`
	if got := flocks(lines, 77); !slices.Equal(got, []int{708}) {
		t.Errorf("flocks = %v, want 708", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
