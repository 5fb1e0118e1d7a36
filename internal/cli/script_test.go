package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/agent"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/network/networktest"
	"banger/internal/vmm/vmmtest"
)

// The test binary is also banger, and a bangerd of the real daemon on a
// pretend host, whose guests run their commands on this one.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"banger":  func() { os.Exit(bangerMain()) },
		"bangerd": func() { os.Exit(bangerdMain()) },
		// What its guests' agents start.
		"banger-agent": func() { os.Exit(agent.Main(os.Args)) },
	})
}

func bangerMain() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return Run(context.Background(), os.Args[1:], Stdio{os.Stdin, os.Stdout, os.Stderr}, Env{
		Name: os.Args[0], Vars: os.Environ(), Root: os.Getenv("NOT_ROOT") == "",
		PassOn:      []string{"BANGER_LOG_LEVEL", "GORACE", "FAIL_START", "FAKE_IMAGE", "FIREWALL", "TEMPLATES", "POOL"},
		testOnlyRun: filepath.Join(os.Getenv("BANGER_ROOT"), "run"),
	})
}

func bangerdMain() int {
	root := flag.String("root", "", "")
	flag.Parse()
	if os.Getenv("FAIL_START") != "" {
		fmt.Fprintf(os.Stderr, "bangerd: program qemu is not installed\nhint: apt-get install -y qemu\n")
		return 5
	}
	err := serve(*root)
	if errors.Is(err, daemon.ErrLocked) {
		return 75
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bangerd: %v\n", err)
		for _, h := range errkind.Hints(err) {
			fmt.Fprintf(os.Stderr, "hint: %s\n", h)
		}
		return 1
	}
	return 0
}

func serve(root string) error {
	paths, err := config.NewPaths(root)
	if err != nil {
		return err
	}
	paths.Run = filepath.Join(root, "run")
	dir, err := os.MkdirTemp(root, "world")
	if err != nil {
		return err
	}
	w := &daemontest.World{
		VMM:     vmmtest.NewHost(),
		Images:  &daemontest.Images{Dir: dir, Recipes: []string{"tiny", "other", "debian-bookworm", "busybox"}},
		Kernels: &daemontest.Kernels{Dir: dir},
		Host:    daemontest.Host{CPU: 4, Memory: 8 << 30, Total: 100 << 30, Spare: 50 << 30},
		Net:     networktest.NewHost(),
		Limits:  &daemontest.Limits{Dir: filepath.Join(dir, "cgroup")},
		Dir:     dir,
	}
	if what := os.Getenv("FIREWALL"); what != "" {
		w.Net.SetObstacles([]network.Obstacle{
			{What: what, Hint: "nft it"}, {What: "table odd", Err: errors.New("it is odd"), Hint: "nft list it"},
		})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	conf := daemontest.Config()
	if i := os.Getenv("FAKE_IMAGE"); i != "" {
		conf.Image = i
	}
	if os.Getenv("TEMPLATES") != "" {
		conf.Templates, conf.Memory = true, 64<<20 // read quickly
	}
	conf.Pool, _ = strconv.Atoi(os.Getenv("POOL"))
	d, err := daemon.Open(ctx, daemon.Options{
		Paths: paths, Config: conf, Mechanisms: w.Mechanisms,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return errors.Join(d.Serve(ctx), d.Close())
}

// bed makes a directory fit for a daemon's root, and has the daemon stopped
// and the directory removed in the end.
func bed(t testing.TB) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bgr-cli-") // short, for the sockets' sake
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := program(root, "daemon", "stop").CombinedOutput(); err != nil {
			t.Errorf("daemon stop at the end: %v\n%s", err, out)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

// environ is what banger and its guests' commands get in tests.
func environ(root string) []string {
	return []string{
		"BANGER_ROOT=" + root, "HOME=" + root, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8",
		"GORACE=atexit_sleep_ms=0", "TERM=xterm",
	}
}

// program returns banger, to be run with args.
func program(root string, args ...string) *exec.Cmd {
	c := exec.Command("banger", args...)
	c.Env = environ(root)
	return c
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, nv := range environ(bed(e.T().(testing.TB))) {
				name, value, _ := strings.Cut(nv, "=")
				e.Setenv(name, value)
			}
			self, err := exec.LookPath("banger")
			e.Setenv("BANGER", self) // where PATH is not what it was
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit":       exitCmd,
			"killdaemon": killDaemonCmd,
			"stopdaemon": func(ts *testscript.TestScript, _ bool, _ []string) { signalDaemonCmd(ts, syscall.SIGSTOP) },
			"contdaemon": func(ts *testscript.TestScript, _ bool, _ []string) { signalDaemonCmd(ts, syscall.SIGCONT) },
			"within":     withinCmd,
			"field":      fieldCmd,
			"traced":     tracedCmd,
			"mktemplate": mkTemplateCmd,
			"standson":   standsOnCmd,
		},
	})
}

// exitCmd is "exit CODE PROGRAM ARGS…": it runs a program that is to end with
// a code. Its input and outputs are those of exec.
func exitCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE PROGRAM ARGS…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		code = ee.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s\n[stdout]\n%s[stderr]\n%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// killDaemonCmd ends the daemon as a crash does.
func killDaemonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if err := killDaemon(ts.Getenv("BANGER_ROOT")); err != nil {
		ts.Fatalf("%v", err)
	}
}

func killDaemon(root string) error {
	pid, err := daemonPID(root)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func daemonPID(root string) (int, error) {
	out, err := program(root, "daemon", "status", "--json").Output()
	if err != nil {
		return 0, err
	}
	var st struct{ PID int }
	return st.PID, json.Unmarshal(out, &st)
}

// signalDaemonCmd makes the daemon hang, and go on. A daemon that hangs cannot
// say who it is: that is kept in a file.
func signalDaemonCmd(ts *testscript.TestScript, sig syscall.Signal) {
	file := ts.MkAbs("daemon.pid")
	if sig == syscall.SIGSTOP {
		pid, err := daemonPID(ts.Getenv("BANGER_ROOT"))
		ts.Check(err)
		ts.Check(os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o600))
		ts.Defer(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
	pid, err := strconv.Atoi(ts.ReadFile(file))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, sig))
}

// withinCmd is "within TIME PROGRAM ARGS…": it runs a program that is to end
// in time.
func withinCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: within TIME PROGRAM ARGS…")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	began := time.Now()
	ts.Check(ts.Exec(args[1], args[2:]...))
	if d := time.Since(began); d > limit {
		ts.Fatalf("took %s, want at most %s", d, limit)
	}
}

// fieldCmd is "field FILE KEY.KEY VALUE": it compares a field of a JSON
// document, both as JSON. A VALUE of "set" takes whatever is there.
func fieldCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: field FILE KEY.KEY VALUE")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	for _, key := range strings.Split(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[key]; !ok {
				ts.Fatalf("%s: no key %q", args[0], key)
			}
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %q", args[0], key)
			}
			v = x[i]
		default:
			ts.Fatalf("%s: nothing at %q", args[0], key)
		}
	}
	got, err := json.Marshal(v)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	same := string(got) == args[2] || args[2] == "set" && v != nil
	if same == neg {
		ts.Fatalf("%s is %s, want %s (not: %t)", args[1], got, args[2], neg)
	}
}
