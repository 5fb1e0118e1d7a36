//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// waits waits until a machine does in the pool, and returns its line of vm list.
func (b *bed) waits() string {
	b.t.Helper()
	var line string
	b.eventually("a machine waits in the pool", 60*time.Second, func() bool {
		line = lineWith(b.must("vm", "list", "--all"), "it waits in the pool")
		return line != ""
	})
	return line
}

// Who asks for a machine of which one waits gets that: under his name, with the
// right clock, as different from others of its template as those are.
func TestPool(t *testing.T) {
	b := newBed(t, `templates = true`, `pool = 1`)
	b.template()
	const who = "hostname; cat /etc/hostname; grep -c \"$(hostname)$\" /etc/hosts; cat /etc/machine-id; cat /root/mine 2>/dev/null; echo was > /root/mine"
	var ids []string
	for _, name := range []string{"one", "two"} {
		b.waits()
		out := b.must("vm", "run", "--rm", "--from", "pool", "--name", name, "--", "sh", "-c", who)
		lines := strings.Fields(out)
		if len(lines) != 4 || lines[0] != name || lines[1] != name || lines[2] != "1" {
			t.Fatalf("%s says it is %q", name, lines)
		}
		ids = append(ids, lines[3])
	}
	b.differ("machine-ids", ids...)

	b.waits()
	b.must("vm", "create", "--from", "pool", "web")
	if off := b.clockOff("web").Abs(); off > 50*time.Millisecond {
		t.Errorf("its clock is off by %s", off)
	}
	b.wants(0, "web\n", "", "vm", "ssh", "web", "--", "hostname")
	b.must("vm", "stop", "web")
	b.must("vm", "start", "web")
	b.wants(0, "web\n", "", "vm", "exec", "web", "--", "hostname")

	// What waited under another daemon goes, and so it does with this one.
	b.waits()
	b.killDaemon()
	b.eventually("what waited is gone", 30*time.Second, func() bool {
		return lineWith(b.must("vm", "list", "--all"), "pool-") == "" && len(b.vmDirs()) == 1
	})
	b.must("vm", "run", "--", "true")
	b.waits()
	b.must("vm", "run", "--from", "pool", "--", "true")
	b.waits()
	b.must("vm", "delete", "web")
	b.must("daemon", "stop")
	b.noVMM("after the daemon was stopped")
	if left := b.vmDirs(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// Wherever the daemon dies at a claim, or while a machine comes to wait, what is
// left is whole: somebody's, or the pool's, or nothing.
func TestPoolDaemonDies(t *testing.T) {
	b := newBed(t, `templates = true`, `pool = 1`)
	b.template()
	for _, point := range []string{"claim/recorded", "claim/resumed"} {
		b.killDaemon()
		b.failpoints = point + "=crash"
		b.must("vm", "run", "--", "true")
		b.waits()
		if r := b.run("vm", "create", "--from", "pool", "web"); r.code == 0 {
			t.Errorf("%s: the daemon died, and create succeeded", point)
		}
		b.failpoints = ""
		b.wants(0, "web\n", "", "vm", "exec", "web", "--", "hostname")
		b.must("vm", "delete", "web")
	}
	for _, point := range []string{"pool/stands", "pool/recorded"} {
		b.must("vm", "prune", "--pool")
		b.must("daemon", "stop")
		b.failpoints = point + "=crash"
		b.must("vm", "run", "--", "true")
		pid := b.daemonPID()
		b.eventually("the daemon dies at "+point, 60*time.Second, func() bool { return !alive(pid) })
		b.failpoints = ""
		b.must("vm", "run", "--", "true")
		b.waits()
	}
	b.must("daemon", "stop")
	b.noVMM("in the end")
	if left := b.vmDirs(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// Runs out of the pool and beside it, with the daemon killed at random moments:
// the host is as it was before, and the pool works.
func TestPoolDaemonKilled(t *testing.T) {
	b := newBed(t, `templates = true`, `pool = 1`)
	b.template()
	r := seed(t)
	for i := range rounds(t, 4) {
		c := b.cmd("vm", "run", "--", "cat", "/etc/hostname")
		var errs strings.Builder
		c.Stderr = &errs
		must(t, c.Start())
		at := time.Duration(r.Int64N(int64(1500 * time.Millisecond)))
		<-time.After(at)
		if pid := b.daemonPID(); pid != 0 {
			b.kill(pid)
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != 0 && code != 125 {
			t.Errorf("round %d, killed after %s: exit %d: %s", i, at, code, errs.String())
		}
		if out := strings.TrimSpace(b.must("vm", "list", "--names")); out != "" {
			t.Errorf("round %d, killed after %s: there is %s", i, at, out)
		}
	}
	b.must("vm", "run", "--", "true")
	b.waits()
	b.must("vm", "run", "--from", "pool", "--", "true")
	b.must("daemon", "stop")
	b.eventually("nothing is left", 30*time.Second, func() bool { return len(b.vmDirs()) == 0 })
	b.noVMM("in the end")
	if staged, err := os.ReadDir(b.paths.Templates() + "/.staging"); err != nil || len(staged) > 0 {
		t.Error(fmt.Sprint("staged: ", staged, err))
	}
}
