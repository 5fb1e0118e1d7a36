package cli

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What ssh is called with; its own configuration files have no say in it.
func TestSSHArgs(t *testing.T) {
	a, _ := sshApp("/srv/b", t.TempDir())
	for _, tt := range []struct {
		f    sshFlags
		argv []string
		want string // between the options and the command
	}{
		{sshFlags{user: "root"}, nil, "-T web.vm"},
		{sshFlags{user: "root", tty: true}, []string{"top"}, "-tt web.vm"},
		{sshFlags{user: "root", none: true}, nil, "-T web.vm"},
		{sshFlags{user: "ann", local: []string{"1:a:2", "3:b:4"}, remote: []string{"5:c:6"}}, nil, "-L 1:a:2 -L 3:b:4 -R 5:c:6 -T web.vm"},
	} {
		args, err := a.sshArgs("web", tt.f, tt.argv)
		must(t, err)
		if len(tt.argv) > 0 {
			last := len(args) - 1
			if args[last] != remoteCommand(tt.argv) {
				t.Errorf("%+v: the command is %q", tt.f, args[last])
			}
			args = args[:last]
		}
		got := strings.Join(args, " ")
		if !strings.HasPrefix(got, "ssh -F none -l "+tt.f.user+" -o ProxyCommand=") || !strings.HasSuffix(got, " -o LogLevel=ERROR "+tt.want) {
			t.Errorf("%+v: %s", tt.f, got)
		}
		for _, o := range []string{"StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "UserKnownHostsFile=/srv/b/state/ssh/known_hosts"} {
			if !strings.Contains(got, " -o "+o+" ") {
				t.Errorf("%+v: no %s in %s", tt.f, o, got)
			}
		}
	}
}

// A shell gives a command its words as they were, whatever is in them.
func TestRemoteCommandWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		argv := rapid.SliceOfN(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 12), 1, 5).Draw(t, "argv")
		words := []string{"sh", "-c", `for a; do printf '%s\0' "$a"; done`, "sh"}
		var want []byte
		for _, w := range argv {
			words = append(words, string(w))
			want = append(append(want, w...), 0)
		}
		out, err := exec.Command("sh", "-c", remoteCommand(words)).Output()
		if err != nil || !bytes.Equal(out, want) {
			t.Fatalf("a shell made %q of %q: %v", out, argv, err)
		}
	})
}

// Whatever the guest's shell is, the exit code is the command's, and so is
// everything that is said.
func TestRemoteCommandEnds(t *testing.T) {
	for _, shell := range [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}} {
		for _, tt := range []struct {
			argv   []string
			code   int
			stderr string // all of it; "*": something
		}{
			{[]string{"true"}, 0, ""},
			{[]string{"sh", "-c", "exit 42"}, 42, ""},
			{[]string{"sh", "-c", "echo err >&2"}, 0, "err\n"},
			{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
			{[]string{"sh", "-c", "kill -INT $$"}, 130, ""},
			{[]string{"sh", "-c", "kill -TERM $$"}, 143, ""},
			{[]string{"sh", "-c", "test ! -e /proc/$$/fd/3"}, 0, ""}, // nothing of ours is open
			{[]string{"no-such-command"}, 127, "*"},
			{[]string{"/etc"}, 126, "*"},
			// Words to a shell, programs to us.
			{[]string{"if"}, 127, "*"},
			{[]string{"cd", "/"}, 127, "*"},
			{[]string{"FOO=bar", "true"}, 127, "*"},
		} {
			c := exec.Command(shell[0], append(shell[1:], "-c", remoteCommand(tt.argv))...)
			var errs bytes.Buffer
			c.Stderr = &errs
			err := c.Run()
			var ee *exec.ExitError
			if err != nil && !errors.As(err, &ee) {
				t.Fatal(err)
			}
			said := errs.String() == tt.stderr || tt.stderr == "*" && errs.Len() > 0
			if c.ProcessState.ExitCode() != tt.code || !said {
				t.Errorf("%s: %q: %v, %q, want exit %d, %q", shell, tt.argv, c.ProcessState, &errs, tt.code, tt.stderr)
			}
		}
	}
}
