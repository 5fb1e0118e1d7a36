//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	b := newBed(t)
	b.wants(42, "", "", "vm", "run", "--", "sh", "-c", "exit 42")
	b.wants(127, "", "no-such-command", "vm", "run", "--", "no-such-command")
	b.wants(126, "", "", "vm", "run", "--", "/etc")
	b.wants(137, "", "", "vm", "run", "--", "sh", "-c", "kill -9 $$")
	b.wants(143, "", "", "vm", "run", "--", "sh", "-c", "kill -TERM $$")
	r := b.run("vm", "run", "--", "sh", "-c", "echo out; echo err >&2")
	if string(r.stdout) != "out\n" || !strings.Contains(string(r.stderr), "err\n") {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if left := b.vmDirs(); len(left) != 0 {
		t.Errorf("ephemeral machines left %v", left)
	}
}

func TestStreamsAreBinaryClean(t *testing.T) {
	b := newBed(t)
	data := make([]byte, 64<<20)
	rand.Read(data)
	sum := sha256.Sum256(data)
	c := b.cmd("vm", "run", "--", "sha256sum")
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output()
	if err != nil || !strings.HasPrefix(string(out), hex.EncodeToString(sum[:])) {
		t.Errorf("sum of 64 MiB sent in: %s, %v, want %x", out, err, sum)
	}
	c = b.cmd("vm", "run", "--", "cat")
	c.Stdin = bytes.NewReader(data[:8<<20])
	if out, err = c.Output(); err != nil || !bytes.Equal(out, data[:8<<20]) {
		t.Errorf("8 MiB through cat: %d bytes came back, %v", len(out), err)
	}
}

func TestPersistent(t *testing.T) {
	b := newBed(t)
	b.wants(0, "web\n", "", "vm", "run", "--name", "web", "--", "cat", "/etc/hostname")
	b.wants(4, "", "exists already", "vm", "create", "web")
	boot := b.must("vm", "exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id")
	b.must("vm", "exec", "web", "--", "sh", "-c", "echo kept > /root/work; echo kept > /kept")
	b.must("vm", "stop", "web")
	if s := b.show("web"); s["state"] != "stopped" || s["state_reason"] == "" {
		t.Errorf("after stop: %v", s)
	}
	b.wants(125, "", "not running", "vm", "exec", "web", "--", "true")
	b.must("vm", "start", "web")
	b.wants(0, "kept\nkept\n", "", "vm", "exec", "web", "--", "cat", "/root/work", "/kept")
	if again := b.must("vm", "exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id"); again == boot {
		t.Error("the guest did not boot anew")
	}
	b.must("vm", "delete", "web")
	b.wants(3, "", "web", "vm", "show", "web")
}

// Stop gives a guest time to sync: nothing that was written before it is lost,
// synced or not.
func TestStopKeepsWhatWasWritten(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for i := range 3 {
		b.must("vm", "exec", "web", "--", "sh", "-c", "head -c 5000000 /dev/urandom > /root/data; sha256sum /root/data > /sum")
		b.must("vm", "stop", "web")
		b.must("vm", "start", "web")
		if r := b.run("vm", "exec", "web", "--", "sha256sum", "-c", "/sum"); r.code != 0 {
			t.Fatalf("round %d: %s%s", i, r.stdout, r.stderr)
		}
	}
}

func TestGuestEndsItself(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for how, reason := range map[string]string{"poweroff": "powered off", "reboot": "rebooted"} {
		b.run("vm", "exec", "web", "--", how)
		b.eventually("stopped after "+how, 15*time.Second, func() bool { return b.show("web")["state"] == "stopped" })
		if got, _ := b.show("web")["state_reason"].(string); !strings.Contains(got, reason) {
			t.Errorf("after %s the reason is %q", how, got)
		}
		b.must("vm", "start", "web")
	}
}

// A client that is killed takes its ephemeral machine with it.
func TestClientKilled(t *testing.T) {
	b := newBed(t)
	b.must("daemon", "start")
	c := b.cmd("vm", "run", "--", "sh", "-c", "echo up; sleep 1000")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	b.eventually("machine is gone", 10*time.Second, func() bool { return len(b.vmDirs()) == 0 })
}

// Ctrl-C reaches the command, and its exit code is ours.
func TestInterrupt(t *testing.T) {
	b := newBed(t)
	c := b.cmd("vm", "run", "--", "sh", "-c", "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.1; done")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	_, _ = rest.ReadFrom(out)
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 7 || rest.String() != "caught\n" {
		t.Errorf("exit %d, said %q", code, rest.String())
	}
}

// The default image: Debian, its own kernel, systemd.
func TestDebian(t *testing.T) {
	b := newBed(t, `image = "debian-bookworm"`, `memory = "1G"`, `disk = "1G"`)
	b.must("vm", "create", "deb")
	b.wants(0, "deb\n", "", "vm", "exec", "deb", "--", "hostname")
	b.wants(0, "bookworm", "", "vm", "exec", "deb", "--", "cat", "/etc/os-release")
	b.wants(0, "systemd\n", "", "vm", "exec", "deb", "--", "cat", "/proc/1/comm")
	b.wants(0, "", "", "vm", "exec", "deb", "--", "modprobe", "dummy")
	b.wants(0, "/root\n", "", "vm", "exec", "deb", "--", "pwd")
	b.must("vm", "exec", "deb", "--", "sh", "-c", "systemctl is-system-running --wait; journalctl -b -u banger-agent --no-pager | head")
	b.must("vm", "exec", "deb", "--", "sh", "-c", "echo kept > /root/kept")
	b.must("vm", "stop", "deb")
	b.must("vm", "start", "deb")
	b.wants(0, "kept\n", "", "vm", "exec", "deb", "--", "cat", "/root/kept")
}
