//go:build lab

package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/test/parts"
)

// A suite is a test binary that is run in the lab.
type suite struct {
	name string
	pkg  string
	tags string
	run  string // of its tests
	env  map[string]string
	time time.Duration
}

// suites are what is real in the lab alone.
var suites = []suite{
	{name: "dmsnap", pkg: "banger/internal/disk/dmsnap", tags: "lab failpoints", time: 5 * time.Minute},
	{name: "cgroup", pkg: "banger/internal/cgroup", tags: "lab", time: 5 * time.Minute},
	{name: "firecracker", pkg: "banger/internal/vmm/firecracker", tags: "lab", run: "^(TestVMMSuite.*|TestDevices|TestSnapshot|TestRefused)$", time: 10 * time.Minute},
	endToEnd("steps", "firecracker", "TestStartFailsAtEveryStep", "TestDaemonDiesAtEveryStep", "TestStartEndsBetweenGroupAndVMM"),
	endToEnd("host", "firecracker", "TestFirewalls", "TestGuestFillsTheHostsDisk", "TestLimits", "TestTooMuchMemory", "TestStats"),
	endToEnd("life", "firecracker", "TestHandles", "TestAllKilled", "TestVMMKilled", "TestVMMKilledDuringBoot", "TestGuestEndsItself", "TestPersistent", "TestPauseResume", "TestPausedIsUsed"),
	endToEnd("sessions", "firecracker", "TestSession", "TestSessionSendRefuses", "TestSessionOutlives", "TestSessionLogsOfStopped", "TestSessionEnds", "TestSessionDiskFull", "TestSessionTerminal"),
	endToEnd("warm", "firecracker", "TestWarm"),
	endToEnd("qemu", "qemu", "TestHandles", "TestAllKilled", "TestVsockAddressTaken"),
}

// endToEnd are tests of test/e2e, with machines of one driver.
func endToEnd(name, driver string, tests ...string) suite {
	return suite{
		name: name, pkg: "banger/test/e2e", tags: "e2e", time: 15 * time.Minute,
		run: "^(" + strings.Join(tests, "|") + ")$",
		env: map[string]string{"BANGER_E2E_PARTS": "/parts", "BANGER_E2E_DRIVER": driver, "BANGER_SOAK_ROUNDS": "1"},
	}
}

// TestLab runs the suites, each in a lab of its own, or of each of them the tests
// that BANGER_LAB_RUN names.
func TestLab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the lab is built by root")
	}
	share := t.TempDir()
	o := options(t, share)
	for _, s := range suites {
		compile(t, s, share)
	}
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			runSuite(t, bootLab(t, o), s)
		})
	}
}

// bootLab returns a lab that is ended with the test.
func bootLab(t *testing.T, o Options) *Lab {
	t.Helper()
	l, err := Boot(t.Context(), o)
	check(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("%v; the lab's console ends:\n%s", err, l.Console(2<<10))
		}
	})
	return l
}

// options makes what the lab is booted from, and hands in the programs.
func options(t *testing.T, share string) Options {
	t.Helper()
	cache, err := filepath.Abs("../../.cache")
	check(t, err)
	bin := filepath.Join(share, "bin")
	check(t, errors.Join(os.Chmod(share, 0o755), os.Mkdir(bin, 0o755), parts.Programs(bin)))
	images := filepath.Join(cache, "test")
	check(t, parts.Fetch(bin, images, "busybox", "debian-bookworm"))
	o := Options{Agent: filepath.Join(bin, "banger-agent"), Share: share}
	o.Parts, err = Parts(t.Context(), filepath.Join(cache, "lab"))
	check(t, err)
	o.Data, err = Data(t.Context(), filepath.Join(cache, "lab"), images)
	check(t, err)
	return o
}

// compile builds a suite's binary, unless it is there.
func compile(t *testing.T, s suite, dir string) {
	t.Helper()
	path := filepath.Join(dir, filepath.Base(s.pkg)+".test")
	if _, err := os.Stat(path); err == nil {
		return
	}
	c := exec.Command("go", "test", "-c", "-tags", s.tags, "-o", path, s.pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", s.name, err, out)
	}
}

// runSuite runs a suite's tests in the lab; what they print is printed as it
// comes, each line after the suite's name.
func runSuite(t *testing.T, l *Lab, s suite) {
	ctx, cancel := context.WithTimeout(t.Context(), s.time)
	defer cancel()
	run := cmp.Or(os.Getenv("BANGER_LAB_RUN"), s.run, ".")
	out := &lines{before: "[" + s.name + "] "}
	code, err := l.Run(ctx, Command{
		Argv: []string{"/share/" + filepath.Base(s.pkg) + ".test", "-test.v", "-test.run", run, "-test.timeout", fmt.Sprint(s.time)},
		Env:  s.env, Dir: "/tmp",
		Stdout: out, Stderr: out,
	})
	out.Flush()
	if err != nil || code != 0 {
		out.complain()
	}
	if err != nil {
		t.Fatalf("%v; the lab's console ends:\n%s", err, l.Console(4<<10))
	}
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The host's power fails while a machine runs. After the next boot the machine
// is known to be stopped, nothing of it is left on the host, and it can be
// started: what was synced is there.
func TestHostLosesPower(t *testing.T) {
	o := options(t, t.TempDir())
	o.Disk = filepath.Join(t.TempDir(), "lab.qcow2")
	const script = "export BANGER_ROOT=/var/tmp/b; PATH=/parts/bin:$PATH; set -ex\n"
	inLab := func(commands, want string) {
		t.Helper()
		l, err := Boot(t.Context(), o)
		check(t, err)
		defer func() { check(t, l.Kill()) }()
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		code, err := l.Run(ctx, Command{Argv: []string{"bash", "-c", script + commands}, Stdout: &out, Stderr: &errs})
		if err != nil || code != 0 || out.String() != want {
			t.Fatalf("exit %d, %v, printed %q, want %q\n%s", code, err, out.String(), want, errs.String())
		}
	}
	inLab(`mkdir -m 711 $BANGER_ROOT
printf 'cache = "/parts/cache"\nimage = "busybox"\nmemory = "192M"\n' > $BANGER_ROOT/config.toml
banger -q vm create web >/dev/null
banger vm exec web -- sh -c 'echo synced > /f; echo synced > /root/f; sync'
banger vm show --json web | grep -c '"dm_name": "banger-'
sync
`, "1\n")
	inLab(`banger -q vm list --json | grep -c '"state": "stopped"'
banger vm list --json | grep -c '"dm_name": null'
dmsetup ls
losetup --list --noheadings
banger -q vm start web >/dev/null
banger vm exec web -- cat /f /root/f
banger vm delete web >/dev/null
banger daemon stop
dmsetup ls
losetup --list --noheadings
`, "1\n1\nNo devices found\nsynced\nsynced\nNo devices found\n")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
