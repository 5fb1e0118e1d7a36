//go:build lab

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	{name: "firecracker", pkg: "banger/internal/vmm/firecracker", tags: "lab", time: 10 * time.Minute},
	{
		name: "e2e", pkg: "banger/test/e2e", tags: "e2e", time: 15 * time.Minute,
		run: "^(TestHandles|TestAllKilled|TestVMMKilled|TestStartFailsAtEveryStep|TestDaemonDiesAtEveryStep|TestGuestFillsTheHostsDisk|TestGuestEndsItself|TestPersistent|TestStats)$",
		env: map[string]string{"BANGER_E2E_PARTS": "/parts", "BANGER_E2E_DRIVER": "firecracker", "BANGER_SOAK_ROUNDS": "2"},
	},
}

// TestLab boots the lab and runs the suites in it, or of each of them the tests
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
	l, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("%v; the lab's console ends:\n%s", err, l.Console(2<<10))
		}
	})
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) { runSuite(t, l, s) })
	}
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

// compile builds a suite's binary.
func compile(t *testing.T, s suite, dir string) {
	t.Helper()
	c := exec.Command("go", "test", "-c", "-tags", s.tags, "-o", filepath.Join(dir, s.name+".test"), s.pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", s.name, err, out)
	}
}

// runSuite runs a suite's tests in the lab; what they print is printed as it
// comes.
func runSuite(t *testing.T, l *Lab, s suite) {
	ctx, cancel := context.WithTimeout(t.Context(), s.time)
	defer cancel()
	run := cmp.Or(os.Getenv("BANGER_LAB_RUN"), s.run, ".")
	code, err := l.Run(ctx, Command{
		Argv: []string{"/share/" + s.name + ".test", "-test.v", "-test.run", run, "-test.timeout", fmt.Sprint(s.time)},
		Env:  s.env, Dir: "/tmp",
		Stdout: os.Stdout, Stderr: os.Stdout,
	})
	if err != nil {
		t.Fatalf("%v; the lab's console ends:\n%s", err, l.Console(4<<10))
	}
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
