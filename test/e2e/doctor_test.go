//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// check is one line of doctor.
type check struct {
	Name, Status, Detail string
	Hints                []string
}

// patient is a bed whose commands run in a mount namespace of their own, in
// which things can be broken.
type patient struct {
	*bed
	inside string // the mount namespace
}

// spoiled returns a bed's commands in a mount namespace in which script, a
// shell's, was run.
func (b *bed) spoiled(t *testing.T, script string) patient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := b.program(ctx, "unshare", "-m", "sh", "-c", "set -e\n"+script+"\necho ready; read end")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { in.Close(); _ = c.Wait() }) // its end frees the mounts
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%s: %q, %v", script, line, err)
	}
	return patient{b, fmt.Sprintf("/proc/%d/ns/mnt", c.Process.Pid)}
}

// run runs a command as the patient; its error output is in what it printed.
func (p patient) run(t *testing.T, argv ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := p.program(ctx, argv...)
	if p.inside != "" {
		through(c, "nsenter", "--mount="+p.inside)
	}
	text, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return string(text), c.ProcessState.ExitCode()
}

// doctor returns what doctor finds, by name. The lines that people read say
// the same.
func (p patient) doctor(t *testing.T) (byName map[string]check, code int) {
	t.Helper()
	banger := filepath.Join(binDir, "banger")
	out, code := p.run(t, banger, "doctor", "--json")
	var d struct {
		OK     bool
		Checks []check
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.OK != (code == 0) {
		t.Fatalf("doctor --json: exit %d, %v:\n%s", code, err, out)
	}
	byName = make(map[string]check)
	for _, c := range d.Checks {
		if old, ok := byName[c.Name]; !ok || old.Status == "ok" {
			byName[c.Name] = c
		}
	}
	text, again := p.run(t, banger, "doctor")
	if again != code {
		t.Errorf("doctor: exit %d, and %d with --json", again, code)
	}
	marks := map[string]string{"ok": "✓ ", "warn": "! ", "fail": "✗ "}
	for _, c := range d.Checks {
		same := c.Name == "disk" || strings.Contains(text, c.Detail+"\n") // others use the disk, too
		if !strings.Contains("\n"+text, "\n"+marks[c.Status]+c.Name+" ") || !same {
			t.Errorf("%+v is not in\n%s", c, text)
		}
		for _, h := range c.Hints {
			if !strings.Contains(text, "\n    hint: "+h+"\n") {
				t.Errorf("hint %q is not in\n%s", h, text)
			}
		}
	}
	return byName, code
}

// finds fails the test unless doctor finds this, and returns it.
func (p patient) finds(t *testing.T, name, status, detail string) check {
	t.Helper()
	all, code := p.doctor(t)
	c := all[name]
	if c.Status != status || !strings.Contains(c.Detail, detail) {
		t.Errorf("doctor says %+v, want %s: %s", c, status, detail)
	}
	if bad := code == 5; bad != (status == "fail") || !bad && code != 0 {
		t.Errorf("doctor: exit %d after %s: %+v", code, status, all)
	}
	return c
}

// mended pastes the hints, one after the other, until all is well again.
func (p patient) mended(t *testing.T, c check) {
	t.Helper()
	if len(c.Hints) == 0 {
		t.Errorf("%s has no hint", c.Name)
	}
	for _, h := range c.Hints {
		out, code := p.run(t, "sh", "-c", h)
		if all, _ := p.doctor(t); all[c.Name].Status == "ok" {
			return
		}
		t.Logf("%s: exit %d: %s", h, code, out)
	}
	all, _ := p.doctor(t)
	t.Errorf("after its hints: %+v", all[c.Name])
}

func TestDoctor(t *testing.T) {
	b := newBed(t)
	well := patient{bed: b}

	all, code := well.doctor(t)
	mayWarn := []string{"kvm", "clock", "disk", "limits"} // as the host is that tests run on
	for _, c := range all {
		if c.Status == "fail" || c.Status == "warn" && !slices.Contains(mayWarn, c.Name) {
			t.Errorf("a host on which tests run: %+v", c)
		}
	}
	if code != 0 || b.daemonPID() != 0 {
		t.Errorf("exit %d, daemon %d", code, b.daemonPID())
	}

	t.Run("packages", func(t *testing.T) {
		// The pretend apt-get knows one package, and gives it.
		p := b.spoiled(t, `
			mmdebstrap=$(command -v mmdebstrap) apt=$(command -v apt-get)
			mount --bind /dev/null $mmdebstrap
			fake=$(mktemp); chmod 755 $fake
			echo "#!/bin/sh
			[ \"\$*\" = 'install -y mmdebstrap' ] && umount $mmdebstrap" >$fake
			mount --bind $fake $apt
			rm $fake`)
		p.mended(t, p.finds(t, "packages", "fail", "not installed: mmdebstrap"))
	})
	t.Run("qemu", func(t *testing.T) {
		p := b.spoiled(t, "mount --bind /dev/null $(command -v qemu-system-x86_64)")
		c := p.finds(t, "driver", "fail", "qemu-system-x86_64 is not installed")
		if len(c.Hints) != 1 || c.Hints[0] != "apt-get install -y qemu-system-x86" {
			t.Errorf("hints %q", c.Hints)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		p := b.spoiled(t, "mount --bind /dev/null $(command -v ssh)")
		p.finds(t, "ssh", "warn", "ssh is not installed")
	})
	t.Run("tun covered", func(t *testing.T) {
		p := b.spoiled(t, "mount --bind /dev/null /dev/net/tun")
		p.mended(t, p.finds(t, "tun", "fail", "something else is mounted"))
	})
	t.Run("tun gone", func(t *testing.T) {
		p := b.spoiled(t, "mount -t tmpfs tmpfs /dev/net")
		p.mended(t, p.finds(t, "tun", "fail", "there is no /dev/net/tun"))
	})
	t.Run("tun another device", func(t *testing.T) {
		p := b.spoiled(t, "mount -t tmpfs tmpfs /dev/net && mknod /dev/net/tun c 1 3")
		p.mended(t, p.finds(t, "tun", "fail", "/dev/net/tun is another device"))
	})
	t.Run("firewall", func(t *testing.T) {
		for _, rule := range []string{"add table ip foreign", "add chain ip foreign forward { type filter hook forward priority 0; policy drop; }"} {
			b.host.Output(t, append([]string{"nft"}, strings.Fields(rule)...)...)
		}
		t.Cleanup(func() { b.host.Output(t, "nft", "delete", "table", "ip", "foreign") })
		well.mended(t, well.finds(t, "firewall", "warn", "table ip foreign, chain forward"))
	})
	t.Run("disk", func(t *testing.T) {
		must(t, os.MkdirAll(b.paths.State, 0o711))
		p := b.spoiled(t, "mount -t tmpfs -o size=64M,mode=711 tmpfs "+b.paths.State)
		c := p.finds(t, "disk", "fail", "64M left, and a machine takes at least 256M")
		if out, code := p.run(t, "sh", "-c", c.Hints[0]); code != 0 || !strings.Contains(out, b.paths.State) {
			t.Errorf("%q: exit %d: %s", c.Hints[0], code, out)
		}
	})
	t.Run("closed", func(t *testing.T) {
		must(t, os.Chmod(b.root, 0o700))
		well.mended(t, well.finds(t, "permissions", "fail", b.root+" may not be passed"))
	})
	t.Run("owner", func(t *testing.T) {
		must(t, os.Chown(b.paths.State, 12345, 0))
		well.mended(t, well.finds(t, "permissions", "fail", "belongs to user 12345"))
	})
	t.Run("configuration", func(t *testing.T) {
		text, err := os.ReadFile(b.paths.Config)
		must(t, err)
		must(t, os.WriteFile(b.paths.Config, append([]byte("memroy = \"1G\"\n"), text...), 0o600))
		well.mended(t, well.finds(t, "configuration", "fail", b.paths.Config+`:1: unknown key "memroy"`))
		b.must("daemon", "start")
		b.must("daemon", "stop")
	})
	t.Run("database", func(t *testing.T) {
		must(t, os.Rename(b.paths.Database(), b.paths.Database()+".good"))
		must(t, os.WriteFile(b.paths.Database(), []byte(strings.Repeat("garbage ", 4000)), 0o600))
		well.mended(t, well.finds(t, "database", "fail", "it is no SQLite database"))
		must(t, os.Rename(b.paths.Database()+".good", b.paths.Database()))
	})
	t.Run("leftovers", func(t *testing.T) {
		stray := filepath.Join(b.paths.VMs(), "ffffffff")
		must(t, os.MkdirAll(stray, 0o711))
		must(t, os.WriteFile(filepath.Join(stray, "work.ext4"), []byte("precious"), 0o600))
		well.mended(t, well.finds(t, "leftovers", "warn", stray))
		if kept, err := os.ReadFile(filepath.Join(b.paths.State, "aside/ffffffff/work.ext4")); string(kept) != "precious" {
			t.Errorf("what was set aside: %q, %v", kept, err)
		}
	})
	t.Run("port", func(t *testing.T) {
		var l net.Listener
		must(t, b.host.Do(func() (err error) {
			l, err = net.Listen("tcp4", "127.0.0.1:42069")
			return err
		}))
		c := well.finds(t, "dns", "warn", fmt.Sprintf("127.0.0.1:42069 is taken by e2e.test (process %d)", os.Getpid()))
		if out, code := well.run(t, "sh", "-c", c.Hints[0]); code != 0 || !strings.Contains(out, strconv.Itoa(os.Getpid())) {
			t.Errorf("%q: exit %d: %s", c.Hints[0], code, out)
		}
		b.must("daemon", "start")
		well.finds(t, "dns", "warn", "names are answered on 127.0.0.1:42070")
		must(t, l.Close())
		well.mended(t, well.finds(t, "dns", "warn", "names are answered on 127.0.0.1:42070"))
		well.finds(t, "dns", "ok", "names are answered on 127.0.0.1:42069")
	})
	t.Run("daemon", func(t *testing.T) {
		b.must("daemon", "start")
		pid := b.daemonPID()
		well.finds(t, "daemon", "ok", fmt.Sprintf("process %d answers", pid))
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		well.mended(t, well.finds(t, "daemon", "fail", fmt.Sprintf("process %d has %s and does not answer", pid, b.paths.State)))
	})
	t.Run("clock", func(t *testing.T) {
		dir := t.TempDir()
		build := exec.Command("go", "build", "-ldflags", "-s -w -X banger/internal/version.Date=2199-01-02T03:04:05Z", "-o", dir+"/", "../../cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		// The hint would set the clock of the host that the tests run on.
		out, code := well.run(t, dir+"/banger", "doctor")
		if code != 5 || !strings.Contains(out, "\n✗ clock ") || !strings.Contains(out, "\n    hint: date -u --set=2199-01-02T03:04:05Z\n") {
			t.Errorf("exit %d:\n%s", code, out)
		}
	})
	t.Run("without root", func(t *testing.T) {
		must(t, os.Chmod(binDir, 0o755))
		out, code := well.run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(binDir, "banger"), "doctor")
		for _, want := range []string{"\n✗ daemon ", "\n    hint: sudo ", " cannot be seen without root\n", "\n✓ driver "} {
			if code != 5 || !strings.Contains(out, want) {
				t.Errorf("exit %d:\n%swant in it %q", code, out, want)
			}
		}
	})
}

// Doctor reads the records of a daemon that runs, and of one that was killed,
// and changes neither.
func TestDoctorOfMachines(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	well := patient{bed: b}
	well.finds(t, "database", "ok", "1 machine")
	well.finds(t, "leftovers", "ok", "")
	b.killDaemon()
	well.finds(t, "database", "ok", "1 machine")
	well.finds(t, "leftovers", "ok", "")
	if pid := b.daemonPID(); pid != 0 {
		t.Errorf("doctor started process %d", pid)
	}
	// The process is found though nothing tells of it any more.
	b.must("vm", "list")
	pid := b.vmmPID("web")
	b.killDaemon()
	must(t, unix.Rename(b.paths.Database(), b.paths.Database()+".away"))
	must(t, unix.Rename(b.paths.Database()+"-wal", b.paths.Database()+".away-wal"))
	must(t, os.Remove(b.paths.Database()+"-shm"))
	well.finds(t, "leftovers", "warn", fmt.Sprintf("1 × process (%d), 1 × directory of disks (", pid))
	must(t, unix.Rename(b.paths.Database()+".away", b.paths.Database()))
	must(t, unix.Rename(b.paths.Database()+".away-wal", b.paths.Database()+"-wal"))
	well.finds(t, "leftovers", "ok", "")
	b.must("vm", "exec", "web", "--", "true")
}
