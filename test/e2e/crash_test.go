//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rounds is how often what is repeated is repeated here; make soak sets more.
func rounds(t *testing.T, few int) int {
	if text := os.Getenv("BANGER_SOAK_ROUNDS"); text != "" {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			t.Fatalf("BANGER_SOAK_ROUNDS = %q", text)
		}
		return n
	}
	return few
}

// The daemon is killed; the machine goes on and is found again, with its
// handles file, without it, and with garbage in its place.
func TestHandles(t *testing.T) {
	b := newBed(t)
	for i := range rounds(t, 5) {
		b.handles(i)
	}
}

// The same with a distribution and its own SSH server.
func TestHandlesDebian(t *testing.T) {
	b := newBed(t, `image = "debian-bookworm"`, `memory = "1G"`)
	b.handles(0)
}

// handles is one round of TestHandles.
func (b *bed) handles(i int) {
	b.t.Helper()
	b.wants(0, "handles-test\n", "", "vm", "run", "--name", "handles-test", "--", "cat", "/etc/hostname")
	boot := b.must("vm", "exec", "handles-test", "--", "cat", "/proc/sys/kernel/random/boot_id")
	dir, _ := b.show("handles-test")["vm_dir"].(string)
	handles := filepath.Join(dir, "handles.json")
	if fi, err := os.Stat(handles); err != nil || fi.Mode().Perm() != 0o600 {
		b.t.Fatalf("handles.json: %v, %v", fi, err)
	}
	pid, tap := b.vmmPID("handles-test"), b.tap("handles-test")
	b.host.IP(b.t, "link", "show", tap)
	b.wantBlockHandles("handles-test")
	if text, err := os.ReadFile(handles); err != nil || !strings.Contains(string(text), tap) || !strings.Contains(string(text), strconv.Itoa(pid)) {
		b.t.Errorf("handles.json: %s, %v", text, err)
	}
	b.killDaemon()
	switch i % 5 {
	case 1:
		must(b.t, os.Remove(handles))
	case 2:
		must(b.t, os.WriteFile(handles, []byte("{garbage"), 0o600))
	case 3:
		must(b.t, os.WriteFile(handles, []byte(`{"vm_id":"00000000","pid":1}`), 0o600))
	case 4:
		must(b.t, os.Truncate(handles, 10))
	}
	if again := b.must("vm", "exec", "handles-test", "--", "cat", "/proc/sys/kernel/random/boot_id"); again != boot {
		b.t.Fatalf("round %d: another boot: %s, was %s", i, again, boot)
	}
	b.wants(0, "handles-test\n", "", "vm", "ssh", "handles-test", "--", "hostname")
	if now := b.vmmPID("handles-test"); now != pid {
		b.t.Errorf("round %d: pid %d, was %d", i, now, pid)
	}
	b.must("vm", "delete", "handles-test")
	if alive(pid) {
		b.t.Errorf("round %d: the VMM lives on", i)
	}
	if left := slices.Concat(b.vmDirs(), b.networkInventory(), b.blockInventory(), b.cgroupInventory()); len(left) > 0 {
		b.t.Errorf("round %d: left %v", i, left)
	}
}

// wantBlockHandles checks that a machine whose root is a snapshot names what
// that is made of, and that it is there.
func (b *bed) wantBlockHandles(name string) {
	b.t.Helper()
	if b.show(name)["driver"] != "firecracker" {
		return
	}
	handles, _ := b.show(name)["handles"].(map[string]any)
	there := strings.Join(b.blockInventory(), "\n")
	for _, key := range []string{"base_loop", "cow_loop", "dm_name"} {
		if value, _ := handles[key].(string); value == "" || !strings.Contains(there, value) {
			b.t.Errorf("%s is %q; there is\n%s", key, value, there)
		}
	}
	if dev, _ := handles["dm_dev"].(string); dev != "/dev/mapper/"+fmt.Sprint(handles["dm_name"]) {
		b.t.Errorf("dm_dev is %q", dev)
	}
}

// VMM and daemon die together, with the handles file and without: the next call
// finds the machine stopped, with nothing left of it on the host; it can be
// started, and what was synced is there.
func TestAllKilled(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for _, lost := range []bool{false, true} {
		b.must("vm", "exec", "web", "--", "sh", "-c", "echo synced > /root/f; echo synced > /f; sync")
		vmm, daemon := b.vmmPID("web"), b.daemonPID()
		dir, _ := b.show("web")["vm_dir"].(string)
		must(t, syscall.Kill(daemon, syscall.SIGSTOP)) // that it does not see the other go
		b.kill(vmm)
		b.killDaemon()
		if lost {
			must(t, os.Remove(filepath.Join(dir, "handles.json")))
		}
		if s := b.show("web"); s["state"] != "stopped" {
			t.Errorf("it is %v, %v", s["state"], s["state_reason"])
		}
		if left := slices.Concat(b.networkInventory(), b.blockInventory(), b.cgroupInventory()); len(left) > 0 {
			t.Errorf("left (handles lost: %t): %v", lost, left)
		}
		b.must("vm", "start", "web")
		b.wants(0, "synced\nsynced\n", "", "vm", "exec", "web", "--", "cat", "/root/f", "/f")
	}
}

// The VMM is killed: within 2 s that is told, and why; what was synced is
// there after the next start.
func TestVMMKilled(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.must("vm", "exec", "web", "--", "sh", "-c", "echo synced > /root/f; sync")
	b.kill(b.vmmPID("web"))
	b.eventually("list says stopped and why", 2*time.Second, func() bool {
		out := b.must("vm", "list")
		return strings.Contains(out, "stopped") && strings.Contains(out, "killed or crashed")
	})
	b.must("vm", "start", "web")
	b.wants(0, "synced\n", "", "vm", "exec", "web", "--", "cat", "/root/f")
	// The same while no daemon watches.
	pid := b.vmmPID("web")
	b.killDaemon()
	b.kill(pid)
	if s := b.show("web"); s["state"] != "stopped" || !strings.Contains(fmt.Sprint(s["state_reason"]), "gone") {
		t.Errorf("found dead: %v, %v", s["state"], s["state_reason"])
	}
}

// The daemon is killed while a guest streams; the next command works.
func TestDaemonKilledWhileStreaming(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for i := range rounds(t, 5) {
		c := b.cmd("vm", "exec", "web", "--", "head", "-c", "67108864", "/dev/zero")
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		if _, err := io.CopyN(io.Discard, out, int64(i%8)<<20+1); err != nil {
			t.Fatal(err)
		}
		b.killDaemon()
		_, _ = io.Copy(io.Discard, out)
		if err := c.Wait(); c.ProcessState.ExitCode() != 125 {
			t.Errorf("round %d: the broken exec ended with %v", i, err)
		}
		b.wants(0, "works\n", "", "vm", "exec", "web", "--", "echo", "works")
	}
}

// Many commands are followed at once, and one writes what nobody reads: the
// next one still answers.
func TestManyFollowers(t *testing.T) {
	b := newBed(t, `memory = "512M"`)
	b.must("vm", "create", "web")
	for range 300 {
		c := b.cmd("vm", "exec", "web", "--", "sh", "-c", "echo up; sleep 1000")
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	c := b.cmd("vm", "exec", "web", "--", "cat", "/dev/zero")
	_, err := c.StdoutPipe() // never read
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	start := time.Now()
	b.wants(0, "works\n", "", "vm", "exec", "web", "--", "echo", "works")
	t.Logf("an exec beside 301 others took %s", time.Since(start))
}

// An ephemeral machine whose daemon is killed is deleted by the next one, and
// its caller is told.
func TestDaemonKilledUnderEphemeral(t *testing.T) {
	b := newBed(t)
	c := b.cmd("vm", "run", "--", "sh", "-c", "echo up; sleep 1000")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	b.killDaemon()
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 125 || !strings.Contains(errs.String(), "may have run") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if left := b.vmDirs(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
