//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/sshkey"
)

// A desk is a user's home with a configuration of SSH that banger has installed
// in it, and a directory to work in.
type desk struct {
	b      *bed
	dir    string
	config string
}

func newDesk(b *bed) desk {
	b.t.Helper()
	d := desk{b: b, dir: b.t.TempDir()}
	d.config = filepath.Join(d.dir, ".ssh/config")
	c := b.cmd("ssh-config", "--install")
	c.Env = append(c.Env, "HOME="+d.dir)
	if out, err := c.CombinedOutput(); err != nil {
		b.t.Fatalf("ssh-config: %v\n%s", err, out)
	}
	return d
}

// run runs a program of the host's in the desk's directory. OpenSSH takes the
// home from the accounts, so its programs need to be told of the configuration.
func (d desk) run(argv ...string) (out string, code int) {
	d.b.t.Helper()
	// In the bed's namespace: what ssh calls may start the daemon.
	c := d.b.program(d.b.t.Context(), argv...)
	c.Dir = d.dir
	c.Env = append(c.Env, "HOME="+d.dir, "GIT_SSH_COMMAND=ssh -F "+d.config, "RSYNC_RSH=ssh -F "+d.config)
	text, err := c.CombinedOutput()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		d.b.t.Fatal(err)
	}
	return string(text), c.ProcessState.ExitCode()
}

func (d desk) must(argv ...string) string {
	d.b.t.Helper()
	out, code := d.run(argv...)
	if code != 0 {
		d.b.t.Fatalf("%q: exit %d\n%s", argv, code, out)
	}
	return out
}

func (d desk) ssh(args ...string) string {
	d.b.t.Helper()
	return d.must(append([]string{"ssh", "-F", d.config}, args...)...)
}

// The agent's own server, in an image that has nothing but BusyBox.
func TestSSH(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.wants(42, "", "", "vm", "ssh", "web", "--", "sh", "-c", "exit 42")
	b.wants(137, "", "", "vm", "ssh", "web", "--", "sh", "-c", "kill -9 $$")
	b.wants(0, "a  b|it's|$HOME|*||\n", "", "vm", "ssh", "web", "--", "sh", "-c", `printf '%s|' "$@"; echo`, "sh", "a  b", "it's", "$HOME", "*", "")
	b.wants(0, "web\n", "", "vm", "ssh", "web", "--", "hostname")
	if r := b.runIn("echo from a shell; exit 3\n", "vm", "ssh", "web"); r.code != 3 || string(r.stdout) != "from a shell\n" {
		t.Errorf("a shell: exit %d, %q, %s", r.code, r.stdout, r.stderr)
	}

	d := newDesk(b)
	data := make([]byte, 4<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(d.dir, "up"), data, 0o640))
	d.must("scp", "-pF", d.config, "up", "web.vm:")
	d.must("scp", "-pF", d.config, "web.vm:up", "down")
	got, err := os.ReadFile(filepath.Join(d.dir, "down"))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}

	// The key stays over a restart of the daemon, and of the machine.
	b.killDaemon()
	if out := d.ssh("web.vm", "cat /etc/hostname"); !strings.HasSuffix(out, "web\n") {
		t.Errorf("after the daemon was killed: %q", out)
	}
	b.must("vm", "stop", "web")
	b.wants(125, "", "banger vm start web", "vm", "ssh", "web")
	if out, code := d.run("ssh", "-F", d.config, "web.vm", "true"); code != 255 || !strings.Contains(out, "not running") {
		t.Errorf("ssh to a stopped machine: exit %d, %s", code, out)
	}
	b.must("vm", "start", "web")
	d.ssh("web.vm", "test -f up")

	// A machine with another key than the known one is refused; another of the
	// same name is known by its own.
	must(t, sshkey.NewKnownHosts(b.paths.KnownHosts()).Add(sshkey.Host{ID: "x", Name: "web.vm", Token: "another"}))
	if out, code := d.run("ssh", "-F", d.config, "web.vm", "true"); code != 255 || !strings.Contains(out, "Host key verification failed") {
		t.Errorf("ssh to somebody else: exit %d, %s", code, out)
	}
	b.must("vm", "delete", "web")
	b.must("vm", "create", "web")
	if out := d.ssh("web.vm", "ls"); out != "" {
		t.Errorf("another machine of the same name: %q", out)
	}
}

// A machine that ends takes its sessions with it, and says so.
func TestSSHMachineKilled(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	c := b.cmd("vm", "ssh", "web", "--", "sh", "-c", "echo ready; exec sleep 300")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	b.must("vm", "kill", "web")
	if err := c.Wait(); c.ProcessState.ExitCode() != 125 || !strings.Contains(errs.String(), "banger: cannot run sh in web") {
		t.Errorf("ended with %v: %s", err, &errs)
	}
}

// An ssh that is absent, and one that does not work.
func TestSSHWithoutClient(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for name, tt := range map[string]struct {
		script, want, hint string
	}{
		"absent": {"", "program ssh is not installed", "apt-get install -y openssh-client"},
		"broken": {"#!/bin/sh\necho libcrypto is missing >&2\nexit 127\n", "libcrypto is missing", "apt-get install -y --reinstall openssh-client"},
		"noise":  {"noise", "exec format error", "apt-get install -y --reinstall openssh-client"},
	} {
		bin := t.TempDir()
		if tt.script != "" {
			must(t, os.WriteFile(filepath.Join(bin, "ssh"), []byte(tt.script), 0o755))
		}
		c := b.cmd("vm", "ssh", "web", "--", "true")
		c.Env = append(c.Env, "PATH="+bin)
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), tt.want) || !strings.Contains(string(out), "hint: "+tt.hint+"\n") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	b.wants(0, "", "", "vm", "ssh", "web", "--", "true")
}

// A distribution with a server of its own: plain OpenSSH, scp, rsync and git.
func TestSSHDebian(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--image", "debian-bookworm", "--memory", "512M", "--disk-size", "256M", "web")
	d := newDesk(b)
	// Before its own server listens, the agent's answers.
	d.ssh("web.vm", "true")
	b.must("vm", "exec", "web", "--timeout", (2 * time.Minute).String(), "--", "sh", "-c", "until systemctl -q is-active ssh.socket; do sleep 0.2; done")
	if out := d.ssh("web.vm", "echo $SSH_CONNECTION"); strings.Contains(out, " 0 ") {
		t.Errorf("this is not the image's own server: %s", out)
	}
	b.wants(42, "", "", "vm", "ssh", "web", "--", "sh", "-c", "exit 42")
	b.wants(143, "", "", "vm", "ssh", "web", "--", "sh", "-c", "kill -TERM $$")

	tree := filepath.Join(d.dir, "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "sub dir"), 0o750))
	must(t, os.WriteFile(filepath.Join(tree, "sub dir/run"), []byte("#!/bin/sh\n"), 0o751))
	must(t, os.Symlink("sub dir/run", filepath.Join(tree, "link")))
	d.must("scp", "-rpF", d.config, "tree/sub dir", "web.vm:copied")
	d.must("rsync", "-a", "tree/", "web.vm:synced")
	d.must("rsync", "-a", "web.vm:synced/", "back")
	if out := d.must("diff", "-r", "--no-dereference", "tree", "back"); out != "" {
		t.Errorf("rsync brought back something else: %s", out)
	}
	if fi, err := os.Stat(filepath.Join(d.dir, "back/sub dir/run")); err != nil || fi.Mode() != 0o751 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	d.ssh("web.vm", "test -x copied/run && test -L synced/link && git init -q repo && cd repo && git -c user.name=me -c user.email=me@web.vm commit -q --allow-empty -m 'from the guest'")
	d.must("git", "clone", "-q", "web.vm:repo", "clone")
	if out := d.must("git", "-C", "clone", "log", "--format=%s"); out != "from the guest\n" {
		t.Errorf("the clone holds %q", out)
	}

	// As docs/ssh.md says it.
	b.must("vm", "exec", "web", "--", "useradd", "-m", "ann")
	b.wants(125, "", "Permission denied", "vm", "ssh", "--user", "ann", "web", "--", "true")
	b.must("vm", "ssh", "web", "--", "sh", "-c", "install -d -m 700 -o ann ~ann/.ssh && install -m 600 -o ann ~/.ssh/authorized_keys ~ann/.ssh/")
	b.wants(0, "ann\n", "", "vm", "ssh", "--user", "ann", "web", "--", "id", "-un")

	// After a restart, strict as before.
	b.must("vm", "stop", "web")
	b.must("vm", "start", "web")
	d.ssh("web.vm", "test -d repo")
}
