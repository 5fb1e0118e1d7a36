//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seed is what the random moments of a test come from; BANGER_SOAK_SEED gives
// that of an earlier run.
func seed(t *testing.T) *rand.Rand {
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("BANGER_SOAK_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	fmt.Printf("BANGER_SOAK_SEED=%d %s\n", n, t.Name())
	return rand.New(rand.NewPCG(n, 0))
}

// runTime is about how long `vm run -- true` takes here, so that something can
// be killed at any moment of it.
func (b *bed) runTime() time.Duration {
	b.must("vm", "run", "--", "true") // image and kernel are there, then
	start := time.Now()
	b.must("vm", "run", "--", "true")
	return time.Since(start)
}

// cycles runs `vm run -- true` many times and has kill end something at a
// random moment of each; then the host is as it was before.
func cycles(t *testing.T, kill func(b *bed, cli *os.Process)) {
	b := newBed(t)
	r := seed(t)
	whole := b.runTime()
	for i := range rounds(t, 5) {
		c := b.cmd("vm", "run", "--", "true")
		var errs strings.Builder
		c.Stderr = &errs
		must(t, c.Start())
		at := time.Duration(r.Int64N(int64(whole)))
		timer := time.NewTimer(at)
		<-timer.C
		kill(b, c.Process)
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != 0 && code != 125 && code != -1 {
			t.Errorf("round %d, killed after %s: exit %d: %s", i, at, code, errs.String())
		}
		// The next command finds order, without being told.
		b.eventually("nothing is left", 30*time.Second, func() bool {
			return strings.TrimSpace(b.must("vm", "list", "--names")) == "" && len(b.vmDirs()) == 0
		})
		b.noVMM(fmt.Sprintf("round %d, killed after %s", i, at))
		if left := b.networkLeft(); len(left) > 0 {
			t.Fatalf("round %d, killed after %s: left %v", i, at, left)
		}
	}
	b.must("daemon", "stop")
	if left := b.inventory(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDaemonKilledInCycles(t *testing.T) {
	cycles(t, func(b *bed, _ *os.Process) {
		if pid := b.daemonPID(); pid != 0 {
			b.kill(pid)
		}
	})
}

func TestCLIKilledInCycles(t *testing.T) {
	cycles(t, func(_ *bed, cli *os.Process) { _ = cli.Kill() })
}

func TestVMMKilledInCycles(t *testing.T) {
	cycles(t, func(b *bed, _ *os.Process) {
		for _, pid := range b.vmmPIDs() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// A random walk over everything that can happen to machines, with the real
// VMM; after every step records and host agree.
func TestRandomWalk(t *testing.T) {
	b := newBed(t, `memory = "96M"`)
	r := seed(t)
	names := []string{"a", "b", "c"}
	up := make(map[string]bool)   // runs, as far as we know
	have := make(map[string]bool) // exists
	steps := []struct {
		name string
		can  func(string) bool
		do   func(string)
	}{
		{"create", func(n string) bool { return !have[n] }, func(n string) {
			b.must("vm", "create", "--no-start", n)
			have[n] = true
		}},
		{"start", func(n string) bool { return have[n] && !up[n] }, func(n string) {
			b.must("vm", "start", n)
			up[n] = true
		}},
		{"stop", func(n string) bool { return have[n] }, func(n string) {
			b.must("vm", "stop", n)
			up[n] = false
		}},
		{"restart", func(n string) bool { return have[n] }, func(n string) {
			b.must("vm", "restart", n)
			up[n] = true
		}},
		{"delete", func(n string) bool { return have[n] }, func(n string) {
			b.must("vm", "delete", n)
			have[n], up[n] = false, false
		}},
		{"daemon crash", func(string) bool { return b.daemonPID() != 0 }, func(string) { b.killDaemon() }},
		{"VMM crash", func(n string) bool { return up[n] }, func(n string) {
			b.kill(b.vmmPID(n))
			up[n] = false
		}},
	}
	b.must("daemon", "start")
	for i := range rounds(t, 12) {
		step, name := steps[r.IntN(len(steps))], names[r.IntN(len(names))]
		for !step.can(name) {
			step, name = steps[r.IntN(len(steps))], names[r.IntN(len(names))]
		}
		t.Logf("step %d: %s %s", i, step.name, name)
		step.do(name)
		b.agrees(names, have, up)
		if t.Failed() {
			return
		}
	}
}

// agrees checks that the list of machines, their processes, taps and
// directories are those that should be.
func (b *bed) agrees(names []string, have, up map[string]bool) {
	b.t.Helper()
	var want, wantUp []string
	for _, n := range names {
		if have[n] {
			want = append(want, n)
		}
		if up[n] {
			wantUp = append(wantUp, n)
		}
	}
	b.eventually("records tell the truth", 5*time.Second, func() bool {
		list := strings.Fields(b.must("vm", "list", "--names"))
		running := strings.Fields(b.must("vm", "list", "--names", "--state", "running"))
		slices.Sort(list)
		slices.Sort(running)
		return slices.Equal(list, want) && slices.Equal(running, wantUp)
	})
	if n := len(b.vmDirs()); n != len(want) {
		b.t.Errorf("%d directories for %v", n, want)
	}
	vmms := len(b.vmmPIDs())
	taps := strings.Count(b.host.IP(b.t, "-o", "link", "show", "type", "tun"), "\n")
	if vmms != len(wantUp) || taps != len(wantUp) {
		b.t.Errorf("%d VMMs and %d taps for %v", vmms, taps, wantUp)
	}
	for _, n := range wantUp {
		b.wants(0, n+"\n", "", "vm", "exec", n, "--", "hostname")
	}
}
