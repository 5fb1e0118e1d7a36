package cli

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A log is followed over a restart, up to the machine's end.
func TestFollowLog(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "web").Run())
	r := start(t, root, "vm", "logs", "-f", "web")
	r.wantLine("booted")
	must(t, program(root, "vm", "restart", "web").Run())
	r.wantLine("booted")
	must(t, program(root, "vm", "stop", "web").Run())
	must(t, program(root, "vm", "start", "web").Run())
	r.wantLine("booted")
	must(t, program(root, "vm", "delete", "web").Run())
	r.wantEnd(0, "", "")
	if r.errs.Len() > 0 {
		t.Errorf("stderr: %s", r.errs.String())
	}
}

func TestFollowInterrupted(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "web").Run())
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		r := start(t, root, "vm", "logs", "-f", "web")
		r.wantLine("booted")
		must(t, r.cmd.Process.Signal(sig))
		r.wantEnd(128+int(sig), "", "")
		if r.errs.Len() > 0 {
			t.Errorf("%s: stderr: %s", sig, r.errs.String())
		}
	}
	r := start(t, root, "vm", "logs", "-f", "--timeout", "300ms", "web")
	r.wantEnd(124, "booted\n", "banger: cannot print the log of web: not done within 300ms\n")
}

// A daemon that goes away is told of, with the line that goes on.
func TestFollowDaemonDies(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "web").Run())
	r := start(t, root, "vm", "logs", "-f", "web")
	r.wantLine("booted")
	must(t, killDaemon(root))
	r.wantEnd(1, "", "hint: banger vm logs -f web\n")
	if said := r.errs.String(); strings.Count(said, "\n") != 2 || strings.Contains(said, "envelope") {
		t.Errorf("stderr: %s", r.errs.String())
	}
	r = start(t, root, "vm", "logs", "-f", "web")
	r.wantLine("booted")
	must(t, program(root, "daemon", "stop").Run())
	r.wantEnd(1, "", "hint: banger vm logs -f web\n")
}

// Who has had enough of a command's output ends it, without noise, also where
// nothing more comes.
func TestPipeCloses(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "web").Run())
	for _, tt := range []struct {
		read int // bytes before the pipe is closed
		args []string
	}{
		{0, []string{"vm", "list"}},
		{0, []string{"vm", "list", "--json"}},
		{0, []string{"vm", "show", "web"}},
		{0, []string{"vm", "logs", "web"}},
		{0, []string{"vm", "logs", "-f", "web"}},
		{6, []string{"vm", "logs", "-f", "web"}},
		{0, []string{"vm", "exec", "web", "--", "yes"}},
		{4, []string{"vm", "exec", "web", "--", "yes"}},
		{0, []string{"vm", "stop", "web"}},
		{0, []string{"vm", "prune", "-f"}},
		{0, []string{"completion", "bash"}},
		{0, []string{"--help"}},
		{0, []string{"vm"}},
	} {
		c := program(root, tt.args...)
		pr, pw, err := os.Pipe()
		must(t, err)
		var errs bytes.Buffer
		c.Stdout, c.Stderr = pw, &errs
		if tt.read == 0 {
			pr.Close() // before it has begun
		}
		must(t, c.Start())
		pw.Close()
		if tt.read > 0 {
			if _, err := io.ReadFull(pr, make([]byte, tt.read)); err != nil {
				t.Errorf("%q: %v; %s", tt.args, err, errs.String())
			}
			pr.Close()
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != 141 || errs.Len() > 0 {
			t.Errorf("%q: exit %d, stderr %q, want 141 and nothing", tt.args, code, errs.String())
		}
	}
}
