package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest/wire"
	"banger/internal/sshkey"
)

// The test binary is also the agent's child that transfers files.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[0] == sftpArgs[0] {
		os.Exit(Main(os.Args))
	}
	// Under nohup SIGHUP is ignored, also by what shells are told to trap; a
	// signal that we take is a default one again to whom we start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// aliceUID is that of the user beside root in an sshBed's accounts.
const aliceUID = 54321

// An sshBed is an agent's own SSH server on a loopback port, and a directory
// with all that clients need.
type sshBed struct {
	t      *testing.T
	dir    string // id, known_hosts, config, root (account files), home, alice
	server *sshServer
	addr   string
}

func newSSHBed(t *testing.T) *sshBed {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "agent-ssh-") // where alice can get to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &sshBed{t: t, dir: dir}
	for name, mode := range map[string]os.FileMode{"": 0o755, "home": 0o700, "alice": 0o700, "root": 0o755, "root/etc": 0o755} {
		must(t, os.MkdirAll(b.path(name), mode))
		must(t, os.Chmod(b.path(name), mode))
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(b.path("alice"), aliceUID, aliceUID))
	}
	b.write("root/etc/passwd", fmt.Sprintf("root:x:%d:%d:root:%s:/bin/sh\nalice:x:%d:%d::%s:/bin/sh\nnosh:x:0:0::/:/no/such/shell\n",
		os.Geteuid(), os.Getegid(), b.path("home"), aliceUID, aliceUID, b.path("alice")), 0o644)
	s, err := New(ServeOptions{Bundle: b.bundle(), Root: b.path("root"), Log: testLog(t)})
	must(t, err)
	b.server, err = s.ssh()
	must(t, err)
	b.listen()
	b.configure("config", b.path("id"))
	b.configure("config-other", b.path("other"))
	return b
}

// configure writes a client's configuration.
func (b *sshBed) configure(name, identity string) {
	b.t.Helper()
	b.write(name, fmt.Sprintf(`Host web.vm
  HostName 127.0.0.1
  Port %s
  HostKeyAlias web.vm
Host *
  User root
  IdentityFile %s
  IdentitiesOnly yes
  StrictHostKeyChecking yes
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
`, b.addr[strings.LastIndex(b.addr, ":")+1:], identity, b.path("known_hosts")), 0o600)
}

// bundle makes keys for server and client.
func (b *sshBed) bundle() wire.Bundle {
	b.t.Helper()
	host, err := sshkey.HostKey(testToken)
	must(b.t, err)
	private, err := host.Private("")
	must(b.t, err)
	client, _, err := sshkey.Identity(b.path("id"), "client", sshkey.Access{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o600})
	must(b.t, err)
	must(b.t, sshkey.NewKnownHosts(b.path("known_hosts")).Add(sshkey.Host{ID: "1", Name: "web.vm", Token: testToken}))
	return wire.Bundle{
		Token:          testToken,
		SSHHostKeys:    map[string]string{"ssh_host_ed25519_key": string(private), "ssh_host_ed25519_key.pub": host.Public("") + "\n"},
		AuthorizedKeys: []string{client.Public("client")},
	}
}

// listen serves connections to a loopback port until the test ends, and checks
// that all of them have ended then.
func (b *sshBed) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b.t, err)
	b.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if err := b.server.serve(c); err != nil {
					b.server.s.o.Log.Debug("SSH connection", "err", err)
				}
			}()
		}
	}()
	b.t.Cleanup(func() { l.Close(); <-done })
}

func (b *sshBed) path(name string) string { return filepath.Join(b.dir, name) }

func (b *sshBed) write(name, text string, mode os.FileMode) {
	b.t.Helper()
	must(b.t, os.WriteFile(b.path(name), []byte(text), mode))
	must(b.t, os.Chmod(b.path(name), mode))
}

// client returns one of OpenSSH's programs.
func (b *sshBed) client(program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(testContext(b.t), program, append([]string{"-F", b.path("config")}, args...)...)
	c.Dir = b.dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "LANG=C.UTF-8", "LC_TEST=yes", "FOO=bar"}
	return c
}

// ssh runs the real ssh to its end.
func (b *sshBed) ssh(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	return b.runClient("", "ssh", args...)
}

func (b *sshBed) runClient(stdin, program string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	c := b.client(program, args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	err := c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		b.t.Fatalf("%s %q: %v", program, args, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// must runs the client and fails unless it ends with 0.
func (b *sshBed) must(program string, args ...string) string {
	b.t.Helper()
	out, errs, code := b.runClient("", program, args...)
	if code != 0 {
		b.t.Fatalf("%s %q: exit %d\n%s%s", program, args, code, out, errs)
	}
	return out
}

// login returns a connection of Go's own client, for what OpenSSH's is too well
// mannered for.
func (b *sshBed) login(user string) *ssh.Client {
	b.t.Helper()
	text, err := os.ReadFile(b.path("id"))
	must(b.t, err)
	signer, err := ssh.ParsePrivateKey(text)
	must(b.t, err)
	c, err := ssh.Dial("tcp", b.addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
