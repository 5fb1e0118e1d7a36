package agent

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"banger/internal/sshkey"
)

// What a command finds and how it ends is as with sshd, seen by the real client.
func TestSSHCommands(t *testing.T) {
	b := newSSHBed(t)
	home, err := filepath.EvalSymlinks(b.path("home"))
	must(t, err)
	for _, tt := range []struct {
		command string
		out     string
		code    int
	}{
		{"echo hello", "hello\n", 0},
		{"exit 42", "", 42},
		{"exit 255", "", 255},
		{"kill -9 $$", "", 128 + 9},
		{"kill -TERM $$", "", 128 + 15},
		{"no-such-command 2>/dev/null", "", 127},
		{"pwd -P; echo $HOME $USER $LOGNAME $SHELL", home + "\n" + b.path("home") + " root root /bin/sh\n", 0},
		{"echo $LANG $LC_TEST $FOO.", "C.UTF-8 yes .\n", 0},
		{"echo $SSH_CONNECTION; echo $SSH_CLIENT", "127.0.0.1 0 127.0.0.1 22\n127.0.0.1 0 22\n", 0},
		{"printf '%s|' 'a  b' \"it's\" '$HOME' '*' ''", "a  b|it's|$HOME|*||", 0},
		{"cat", "", 0},
		{"[ -t 0 ] || [ -t 1 ] || echo no terminal", "no terminal\n", 0},
		// What is left in the background does not hold up the end.
		{"sleep 300 & echo $!", "-", 0},
	} {
		out, errs, code := b.ssh("-o", "SendEnv=LANG LC_TEST FOO", "web.vm", tt.command)
		if tt.out == "-" {
			pid, err := strconv.Atoi(strings.TrimSpace(out))
			must(t, err)
			must(t, syscall.Kill(pid, syscall.SIGKILL))
			out = tt.out
		}
		if out != tt.out || errs != "" || code != tt.code {
			t.Errorf("%s: %q, %q, exit %d, want %q, exit %d", tt.command, out, errs, code, tt.out, tt.code)
		}
	}
	if out, errs, _ := b.ssh("web.vm", "echo out; echo err >&2"); out != "out\n" || errs != "err\n" {
		t.Errorf("streams: %q, %q", out, errs)
	}
	if out, errs, code := b.runClient("echo a shell; exit 3\n", "ssh", "web.vm"); out != "a shell\n" || code != 3 {
		t.Errorf("a shell: %q, %q, exit %d", out, errs, code)
	}
	if out := b.must("ssh", "web.vm", "echo $0"); out != "/bin/sh\n" {
		t.Errorf("a command's shell is %q", out)
	}
	if out, _, _ := b.runClient("echo $0\n", "ssh", "web.vm"); out != "-sh\n" {
		t.Errorf("a login's shell is %q", out)
	}
	if _, errs, code := b.ssh("nosh@web.vm", "true"); code != 127 || !strings.Contains(errs, "/no/such/shell") {
		t.Errorf("a shell that is not there: %q, exit %d", errs, code)
	}
	if _, _, code := b.ssh("-s", "web.vm", "no-such-subsystem"); code != 255 {
		t.Errorf("no such subsystem: exit %d", code)
	}
}

func TestSSHLargeStreams(t *testing.T) {
	b := newSSHBed(t)
	data := make([]byte, 10<<20+3)
	rand.Read(data)
	c := b.client("ssh", "web.vm", "cat")
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output()
	if err != nil || !bytes.Equal(out, data) {
		t.Errorf("through cat came %d bytes of %d, %v", len(out), len(data), err)
	}
	// All of the output is there when the exit code is.
	if out := b.must("ssh", "web.vm", "head -c 3000000 /dev/zero; exit 0"); len(out) != 3000000 {
		t.Errorf("%d bytes came", len(out))
	}
	// A command that does not read its input ends all the same.
	c = b.client("ssh", "web.vm", "exit 5")
	c.Stdin = bytes.NewReader(data)
	if err := c.Run(); c.ProcessState.ExitCode() != 5 {
		t.Errorf("unread input: %v", err)
	}
}

// Whoever writes what nobody reads any more is told so, and ends.
func TestSSHOutputCut(t *testing.T) {
	b := newSSHBed(t)
	c := b.client("ssh", "web.vm", "yes; echo $? >"+b.path("home/code"))
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	if _, err := io.ReadFull(out, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if err := c.Wait(); c.ProcessState.ExitCode() != 0 {
		t.Errorf("ssh: %v", err)
	}
	if code, err := os.ReadFile(b.path("home/code")); err != nil || string(code) != "141\n" { // SIGPIPE
		t.Errorf("the command ended with %q, %v", code, err)
	}
}

func TestSSHKeys(t *testing.T) {
	b := newSSHBed(t)
	refused := func(what string, args ...string) {
		t.Helper()
		if _, errs, code := b.ssh(append(args, "true")...); code != 255 || !strings.Contains(errs, "Permission denied") {
			t.Errorf("%s: exit %d, %s", what, code, errs)
		}
	}
	other, _, err := sshkey.Identity(b.path("other"), "", sshkey.Access{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o600})
	must(t, err)
	with := []string{"-F", b.path("config-other"), "web.vm"}
	refused("an unknown key", with...)
	b.configure("config-none", "/no/such/key")
	refused("no key", "-F", b.path("config-none"), "web.vm")
	refused("no user of the guest's", "nobody-of-that-name@web.vm")

	// The user's own file.
	must(t, os.Mkdir(b.path("home/.ssh"), 0o700))
	const keys = "home/.ssh/authorized_keys"
	b.write(keys, "# mine\nnoise\n\n"+other.Public("a friend")+"\n", 0o600)
	b.must("ssh", append(with, "true")...)
	b.must("ssh", "web.vm", "true") // the bundle's as before
	b.write(keys, `command="/bin/false",no-pty `+other.Public("")+"\n", 0o600)
	refused("a key with a condition that we do not know", with...)
	for what, spoil := range map[string]string{"the file": keys, "its directory": "home/.ssh", "the home": "home"} {
		b.write(keys, other.Public("")+"\n", 0o600)
		fi, err := os.Stat(b.path(spoil))
		must(t, err)
		must(t, os.Chmod(b.path(spoil), fi.Mode().Perm()|0o020))
		refused("others can write "+what, with...)
		must(t, os.Chmod(b.path(spoil), fi.Mode().Perm()))
		b.must("ssh", append(with, "true")...)
	}
	must(t, os.Remove(b.path(keys)))
	must(t, syscall.Mkfifo(b.path(keys), 0o600))
	refused("a pipe in the place of keys", with...)
}

// A server with another key than the known one gets nothing.
func TestSSHHostKeyIsChecked(t *testing.T) {
	b := newSSHBed(t)
	must(t, sshkey.NewKnownHosts(b.path("known_hosts")).Add(sshkey.Host{ID: "1", Name: "web.vm", Token: "another"}))
	if _, errs, code := b.ssh("web.vm", "touch "+b.path("done")); code != 255 || !strings.Contains(errs, "Host key verification failed") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if exists(b.path("done")) {
		t.Error("a command ran")
	}
}

func TestSSHUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("changing users needs root")
	}
	b := newSSHBed(t)
	want := fmt.Sprintf("%d %d\n%s\n", aliceUID, aliceUID, b.path("alice"))
	if out := b.must("ssh", "alice@web.vm", "echo $(id -u) $(id -g); pwd"); out != want {
		t.Errorf("alice is %q, want %q", out, want)
	}
	// Her files are hers, and root's are not.
	b.write("secret", "secret", 0o600)
	b.write("up", "up", 0o644)
	b.must("scp", b.path("up"), "alice@web.vm:up")
	fi, err := os.Stat(b.path("alice/up"))
	must(t, err)
	if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != aliceUID {
		t.Errorf("her file is %d's", uid)
	}
	if _, errs, code := b.runClient("", "scp", "alice@web.vm:"+b.path("secret"), b.path("got")); code == 0 || !strings.Contains(errs, "ermission denied") {
		t.Errorf("she read root's file: exit %d, %s", code, errs)
	}
	// Nor may she go to sockets as root does.
	sock := b.path("s")
	echoAtEnd(t, "unix", sock)
	if _, err := b.login("alice").Dial("unix", sock); err == nil {
		t.Error("she got to a socket as root")
	}
	if _, err := b.login("alice").Listen("tcp", "127.0.0.1:81"); err == nil {
		t.Error("she listens on a port of root's")
	}
}

func TestSSHFiles(t *testing.T) {
	b := newSSHBed(t)
	data := make([]byte, 10<<20)
	rand.Read(data)
	must(t, os.MkdirAll(b.path("tree/sub dir"), 0o750))
	b.write("tree/sub dir/it's $HOME", string(data), 0o640)
	b.write("tree/run", "#!/bin/sh\n", 0o751)
	must(t, os.Symlink("run", b.path("tree/link")))
	b.must("scp", "-rp", b.path("tree"), "web.vm:")
	b.must("scp", "-rp", "web.vm:tree", b.path("back"))
	for _, tree := range []string{"home/tree", "back"} {
		got, err := os.ReadFile(b.path(tree + "/sub dir/it's $HOME"))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", tree, len(got), err)
		}
		if fi, err := os.Stat(b.path(tree + "/run")); err != nil || fi.Mode() != 0o751 {
			t.Errorf("%s: mode %v, %v", tree, fi.Mode(), err)
		}
	}
	// The old protocol, for clients that speak no other.
	b.must("scp", "-O", b.path("tree/run"), "web.vm:old")
	if !exists(b.path("home/old")) {
		t.Error("scp -O brought nothing")
	}
	out, errs, code := b.runClient("mkdir d\nput "+b.path("tree/run")+" d/run\nrename d/run d/ran\nsymlink ran d/l\nls -l d\nrm d/ran\n", "sftp", "-b", "-", "web.vm")
	if code != 0 || !strings.Contains(out, "d/ran") || exists(b.path("home/d/ran")) || !exists(b.path("home/d/l")) {
		t.Errorf("sftp: exit %d\n%s%s", code, out, errs)
	}
}

// A terminal has the size it is given, then and later.
func TestSSHTerminal(t *testing.T) {
	b := newSSHBed(t)
	s, err := b.login("root").NewSession()
	must(t, err)
	in, err := s.StdinPipe()
	must(t, err)
	outPipe, err := s.StdoutPipe()
	must(t, err)
	must(t, s.RequestPty("vt100", 40, 100, ssh.TerminalModes{}))
	must(t, s.Start("echo $TERM; stty size; read x; stty size; exit 4"))
	var got []byte
	read := func(until string) {
		t.Helper()
		for one := make([]byte, 1); !strings.HasSuffix(string(got), until); {
			if _, err := outPipe.Read(one); err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			got = append(got, one[0])
		}
	}
	read("vt100\r\n40 100\r\n")
	must(t, s.WindowChange(50, 120))
	_, err = in.Write([]byte("\n"))
	must(t, err)
	read("50 120\r\n")
	var ee *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &ee) || ee.ExitStatus() != 4 {
		t.Errorf("ended with %v", err)
	}
	if out := b.must("ssh", "-tt", "web.vm", "test -t 0 && test -t 1 && tty"); !strings.HasPrefix(out, "/dev/") {
		t.Errorf("ssh -tt: %q", out)
	}
}

func TestSSHSignal(t *testing.T) {
	b := newSSHBed(t)
	s, err := b.login("root").NewSession()
	must(t, err)
	out, err := s.StdoutPipe()
	must(t, err)
	must(t, s.Start("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"))
	_, err = io.ReadFull(out, make([]byte, 6))
	must(t, err)
	must(t, s.Signal(ssh.SIGUSR1))
	var ee *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &ee) || ee.ExitStatus() != 9 {
		t.Errorf("ended with %v", err)
	}
	s, err = b.login("root").NewSession()
	must(t, err)
	if err := s.Run("kill -SEGV $$"); !errors.As(err, &ee) || ee.ExitStatus() != 139 || ee.Signal() != "SEGV" {
		t.Errorf("ended with %v", err)
	}
}

// A client that goes takes what it ran with it, politely first.
func TestSSHClientGone(t *testing.T) {
	b := newSSHBed(t)
	for name, script := range map[string]string{
		"polite": "trap 'echo bye >" + b.path("bye") + "; exit' HUP; echo $$; while :; do sleep 0.01; done",
		"deaf":   "trap '' HUP TERM; echo $$; while :; do sleep 0.01; done",
	} {
		c := b.client("ssh", "web.vm", script)
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatal(err)
		}
		must(t, c.Process.Kill())
		c.Wait()
		waitGone(t, name, pid)
	}
	if !exists(b.path("bye")) {
		t.Error("it had no time to say goodbye")
	}
}

func waitGone(t *testing.T, name string, pid int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx := testContext(t)
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: process %d lives on", name, pid)
		}
	}
}

func TestSSHLimits(t *testing.T) {
	b := newSSHBed(t)
	c := b.login("root")
	for range maxSSHChannels {
		_, err := c.NewSession()
		must(t, err)
	}
	if s, err := c.NewSession(); err == nil {
		s.Close()
		t.Errorf("more than %d channels", maxSSHChannels)
	}
	c.Close()
	c = b.login("root")
	for range maxSSHListeners {
		_, err := c.Listen("tcp", "127.0.0.1:0")
		must(t, err)
	}
	if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Errorf("more than %d listeners", maxSSHListeners)
	}
	// Whatever a client says about a session that it has not begun, or twice.
	s, err := c.NewSession()
	must(t, err)
	for _, r := range []struct{ kind, payload string }{
		{"window-change", "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"}, {"signal", "\x00\x00\x00\x04KILL"},
		{"exec", ""}, {"exec", "\x7f\xff\xff\xff"}, {"pty-req", "x"}, {"env", "\xff"}, {"env", "\x00\x00\x00\x04PATH\x00\x00\x00\x01/"},
		{"subsystem", "\x00\x00\x00\x01x"}, {"x11-req", ""}, {"auth-agent-req@openssh.com", ""},
	} {
		if ok, err := s.SendRequest(r.kind, true, []byte(r.payload)); ok || err != nil {
			t.Errorf("%s %q: %v, %v", r.kind, r.payload, ok, err)
		}
	}
	must(t, s.Start("sleep 100"))
	for _, kind := range []string{"shell", "pty-req"} {
		if ok, err := s.SendRequest(kind, true, nil); ok || err != nil {
			t.Errorf("%s after the start: %v, %v", kind, ok, err)
		}
	}
}

// Nobody waits for ever for a client that says nothing, and there are so many
// connections at a time and no more.
func TestSSHConnections(t *testing.T) {
	b := newSSHBed(t)
	var conns []halfCloser
	for range maxSSHConns {
		c, err := b.server.dial()
		must(t, err)
		conns = append(conns, c)
	}
	if _, err := b.server.dial(); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	for _, c := range conns {
		must(t, c.Close())
	}
	c, err := b.server.dial()
	must(t, err)
	must(t, c.Close())
}
