//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostLimits reports whether this host lets root limit what processes take.
func hostLimits() bool {
	offered, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	words := strings.Fields(string(offered))
	return err == nil && slices.Contains(words, "memory") && slices.Contains(words, "pids")
}

// cgroupInventory lists the cgroups of the bed's machines.
func (b *bed) cgroupInventory() []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup/banger-"+b.paths.Tag, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			found = append(found, "cgroup "+path)
		}
		return nil
	})
	return found
}

// Each VMM is in a cgroup of its own, with limits, or daemon and machine say that
// there are none.
func TestLimits(t *testing.T) {
	b := newBed(t, `memory = "128M"`)
	b.must("vm", "create", "web")
	group, _ := b.show("web")["cgroup"].(string)
	status := b.must("daemon", "status")
	if !hostLimits() {
		if group != "" || !strings.Contains(status, "machines run without limits on memory and processes: ") {
			t.Errorf("no limits here, but the machine's cgroup is %q, and the daemon's status\n%s", group, status)
		}
		return
	}
	if strings.Contains(status, "without limits") {
		t.Errorf("daemon status:\n%s", status)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.vmmPID("web")))
	if in := strings.TrimSpace(strings.TrimPrefix(string(text), "0::")); err != nil || "/sys/fs/cgroup"+in != group {
		t.Errorf("the VMM is in %q, %v, want %q", text, err, group)
	}
	guest := int64(128 << 20)
	if limit := b.limit(group, "memory.max"); limit < guest+64<<20 || limit > guest+1<<30 {
		t.Errorf("memory.max = %d for a guest of %d", limit, guest)
	}
	if limit := b.limit(group, "pids.max"); limit < 8 || limit > 256 {
		t.Errorf("pids.max = %d", limit)
	}
	// A guest may use all its memory, here for its own page cache, and its disk.
	b.must("vm", "exec", "web", "--", "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=100 && sync && cat /f > /dev/null")
	if limit := b.limit(group, "memory.peak"); limit > 0 {
		t.Logf("at most %d MiB of %d MiB were in use", limit>>20, b.limit(group, "memory.max")>>20)
	}
	b.must("vm", "delete", "web")
	if left := b.cgroupInventory(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// limit reads a figure of a cgroup; 0 if this kernel has none such.
func (b *bed) limit(group, file string) (n int64) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(group, file))
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	if err != nil && !os.IsNotExist(err) {
		b.t.Errorf("%s: %q, %v", file, text, err)
	}
	return n
}

// A VMM that takes too much is killed, and why is told, whether a daemon watched
// or not.
func TestTooMuchMemory(t *testing.T) {
	if !hostLimits() {
		t.Skip("this host's cgroups have no limits; the lab's have")
	}
	b := newBed(t)
	b.must("vm", "create", "web")
	for _, watched := range []bool{true, false} {
		group, _ := b.show("web")["cgroup"].(string)
		limit := b.limit(group, "memory.max")
		pid := b.vmmPID("web")
		if !watched {
			b.killDaemon()
		}
		// One that stands in for what a VMM might do, in its group.
		hog := exec.Command("sh", "-c", `echo $$ > "$0"/cgroup.procs && exec dd if=/dev/zero of=/dev/null count=1 bs="$1"`, group, fmt.Sprint(limit))
		out, err := hog.CombinedOutput()
		if ws := hog.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
			t.Fatalf("it was not killed: %v\n%s", err, out)
		}
		b.eventually("the VMM is gone", 10*time.Second, func() bool { return !alive(pid) })
		want := fmt.Sprintf("the VMM used more memory than its limit of %dM", limit>>20)
		b.eventually("the reason is recorded", 10*time.Second, func() bool { return b.show("web")["state"] == "stopped" })
		if s := b.show("web"); s["state_reason"] != want {
			t.Errorf("watched %t: it is stopped: %v, want %q", watched, s["state_reason"], want)
		}
		if left := b.cgroupInventory(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if watched {
			b.must("vm", "start", "web")
		}
	}
}

// The daemon dies, or a start fails, when the VMM's group was made and the VMM not
// yet started.
func TestStartEndsBetweenGroupAndVMM(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	const point = "start/vmm/bound"
	for _, how := range []string{"error", "crash"} {
		b.must("daemon", "stop")
		b.failpoints = point + "=" + how
		b.wants(1, "", "", "vm", "start", "web")
		b.failpoints = ""
		if s := b.show("web"); s["state"] != "stopped" {
			t.Errorf("%s: it is %v", how, s["state"])
		}
		b.noVMM(point + "=" + how)
	}
}
