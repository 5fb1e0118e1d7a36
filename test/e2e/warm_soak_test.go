//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// soakOnly skips a test that takes too long to be run each time.
func soakOnly(t *testing.T) {
	t.Helper()
	if os.Getenv("BANGER_SOAK_ROUNDS") == "" {
		t.Skip("make soak runs this")
	}
}

// warmCrowd restores, uses and deletes many machines at once.
func (b *bed) warmCrowd(map[string]any) {
	n := 20
	if inLab() {
		n = 4
	}
	out, took := make([]string, n), make([]time.Duration, n)
	began := time.Now()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r := b.run("vm", "run", "--", "sh", "-c", "cat /proc/sys/kernel/random/boot_id; hostname; cat /etc/machine-id; "+randomLine)
			if took[i], out[i] = time.Since(began), string(r.stdout); r.code != 0 {
				b.t.Errorf("machine %d: exit %d\n%s", i, r.code, r.stderr)
			}
		})
	}
	all.Wait()
	whole := time.Since(began)
	var boots, names, ids, random []string
	for _, o := range out {
		if f := strings.Split(o, "\n"); len(f) == 5 {
			boots, names, ids, random = append(boots, f[0]), append(names, f[1]), append(ids, f[2]), append(random, f[3])
			continue
		}
		b.t.Errorf("a machine says %q", o)
	}
	for _, boot := range boots {
		if boot != boots[0] {
			b.t.Errorf("not all were restored: %q", boots)
			break
		}
	}
	b.differ("hostnames", names...)
	b.differ("machine-ids", ids...)
	b.differ("first random bytes", random...)
	if left := b.vmDirs(); len(left) > 0 {
		b.t.Errorf("left %v", left)
	}
	b.noVMM("after all have ended")
	b.t.Logf("%d machines at once, the last after %s\n%s", n, whole.Round(time.Millisecond), table(took))
}

// table shows when each of several ended.
func table(took []time.Duration) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, d := range took {
		fmt.Fprintf(w, "%d\t%s\t\n", i, d.Round(time.Millisecond))
	}
	_ = w.Flush() // to a strings.Builder
	return text.String()
}

// warmKeeps restores machines that write to disks and memory and are paused
// again and again, beside another one that writes: what they wrote is what they
// read.
func (b *bed) warmKeeps(x map[string]any) {
	const (
		write = "for d in / /root /dev/shm; do head -c 2000000 /dev/urandom > $d/data && sha256sum $d/data; done > /sums; wc -l < /sums"
		load  = "while :; do for d in / /root /dev/shm; do head -c 500000 /dev/urandom > $d/load; done; sync; done"
	)
	b.must("vm", "create", "beside")
	b.must("vm", "session", "start", "beside", "--", "sh", "-c", load)
	for i := range rounds(b.t, 1) {
		b.wants(0, "3\n", "", "vm", "run", "--name", "keeper", "--", "sh", "-c", write)
		if got := b.show("keeper")["template"]; got != x["id"] {
			b.t.Fatalf("round %d: it stands on template %v", i, got)
		}
		b.must("vm", "session", "start", "keeper", "--", "sh", "-c", load)
		for range 3 {
			b.must("vm", "pause", "keeper")
			r := b.run("vm", "exec", "keeper", "--", "sh", "-c", "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /sums")
			if r.code != 0 || strings.Count(string(r.stdout), ": OK\n") != 3 {
				b.t.Fatalf("round %d: exit %d\n%s%s", i, r.code, r.stdout, r.stderr)
			}
		}
		b.must("vm", "delete", "keeper")
	}
	b.must("vm", "delete", "beside")
}

// warmKilled has the daemon killed at random moments of runs that restore.
func (b *bed) warmKilled(map[string]any) {
	r := seed(b.t)
	began := time.Now()
	b.must("vm", "run", "--", "true")
	whole := time.Since(began)
	for i := range rounds(b.t, 3) {
		c := b.cmd("vm", "run", "--", "true")
		var errs strings.Builder
		c.Stderr = &errs
		must(b.t, c.Start())
		at := time.Duration(r.Int64N(int64(whole)))
		<-time.After(at)
		if pid := b.daemonPID(); pid != 0 {
			b.kill(pid)
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != 0 && code != 125 {
			b.t.Errorf("round %d, killed after %s: exit %d: %s", i, at, code, errs.String())
		}
		b.eventually("nothing is left", 30*time.Second, func() bool {
			return strings.TrimSpace(b.must("vm", "list", "--names")) == "" && len(b.vmDirs()) == 0
		})
		b.noVMM(fmt.Sprintf("round %d, killed after %s", i, at))
	}
	if list := b.templates(); len(list) != 1 || list[0]["damaged"] != "" {
		b.t.Errorf("templates: %v", list)
	}
}

// The host's disk fills up while a template is made: nothing is left of that, no
// machine of a user's minds for long, and with room again there is a template.
func TestWarmDiskFull(t *testing.T) {
	soakOnly(t)
	b := newBed(t, `templates = true`)
	b.smallDisk(3000)
	ballast := filepath.Join(b.paths.State, "somebody-elses")
	for _, left := range []int64{100 << 20, 30 << 20, 4 << 20} {
		b.must("vm", "run", "--name", "web", "--", "sh", "-c", "echo mine > /root/f; sync")
		b.eventually("a template is being made", time.Minute, func() bool { return b.maker() != "" })
		var fs unix.Statfs_t
		must(t, unix.Statfs(b.paths.State, &fs))
		size := int64(fs.Bavail)*fs.Bsize - left
		if out, err := exec.Command("fallocate", "-l", fmt.Sprint(size), ballast).CombinedOutput(); err != nil {
			t.Fatalf("fallocate: %v: %s", err, out)
		}
		b.eventually("it is given up", time.Minute, func() bool { return b.maker() == "" })
		b.nothingHalf("on a full disk")
		if left := b.templateFiles(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		must(t, os.Remove(ballast))
		b.eventually("the user's machine goes on", time.Minute, func() bool { return b.show("web")["state"] == "running" })
		b.wants(0, "mine\n", "", "vm", "exec", "web", "--", "cat", "/root/f")
		b.must("vm", "delete", "web")
		b.must("daemon", "stop") // one that could not make it does not try again soon
	}
	b.template()
}
