package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/guest/wire"
)

func TestExecExit(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	dir := t.TempDir()
	script := filepath.Join(dir, "no-interpreter")
	plain := filepath.Join(dir, "plain")
	if err := errors.Join(os.WriteFile(script, []byte("#!/nowhere/sh\n"), 0o755), os.WriteFile(plain, []byte("echo\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "text"), []byte("echo\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name           string
		start          *wire.ExecStart
		stdout, stderr string
		code           int32
		signal, error  string
	}{
		{"both streams", sh("echo out; echo err >&2"), "out\n", "err\n", 0, "", ""},
		{"exit code", sh("exit 42"), "", "", 42, "", ""},
		{"arguments, not a shell", &wire.ExecStart{Argv: []string{"printf", "%s|", "a b", "$HOME", "", "'"}, Cwd: "/"}, "a b|$HOME||'|", "", 0, "", ""},
		{"signal", sh("kill -KILL $$"), "", "", 137, "KILL", ""},
		{"not found", &wire.ExecStart{Argv: []string{"no-such-command"}, Cwd: "/"}, "", "", 127, "", "not found"},
		{"no name", &wire.ExecStart{Argv: []string{""}, Cwd: "/"}, "", "", 127, "", "not found"},
		{"path not found", &wire.ExecStart{Argv: []string{"/no/such"}, Cwd: "/"}, "", "", 127, "", "no such file"},
		{"interpreter not found", &wire.ExecStart{Argv: []string{script}, Cwd: "/"}, "", "", 127, "", "no such file"},
		{"not executable", &wire.ExecStart{Argv: []string{plain}, Cwd: "/"}, "", "", 126, "", "permission denied"},
		{"not executable, in PATH", &wire.ExecStart{Argv: []string{"plain"}, Env: map[string]string{"PATH": dir}, Cwd: "/"}, "", "", 126, "", "permission denied"},
		{"no program", &wire.ExecStart{Argv: []string{dir + "/text"}, Cwd: "/"}, "", "", 126, "", "exec format"},
		{"directory", &wire.ExecStart{Argv: []string{dir}, Cwd: "/"}, "", "", 126, "", "directory"},
		{"relative to the working directory", &wire.ExecStart{Argv: []string{"./plain"}, Cwd: dir}, "", "", 126, "", "permission denied"},
		{"no working directory", &wire.ExecStart{Argv: []string{"true"}, Cwd: "/no/such"}, "", "", 126, "", "change directory"},
		{"no user", &wire.ExecStart{Argv: []string{"true"}, User: "nobody-of-this-name"}, "", "", 126, "", "no user"},
		{"no input", sh("cat; echo end"), "end\n", "", 0, "", ""},
		{"environment", &wire.ExecStart{Argv: []string{"sh", "-c", "echo $A-$PATH"}, Env: map[string]string{"A": "x y"}, Cwd: "/"}, "x y-" + rootPath + "\n", "", 0, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := startRun(t, testContext(t), a, tt.start)
			x := r.end(t)
			if string(r.stdout) != tt.stdout || string(r.stderr) != tt.stderr {
				t.Errorf("stdout %q, stderr %q, want %q, %q", r.stdout, r.stderr, tt.stdout, tt.stderr)
			}
			if x.GetCode() != tt.code || x.GetSignal() != tt.signal || !strings.Contains(x.GetError(), tt.error) || (tt.error == "") != (x.GetError() == "") {
				t.Errorf("exit %v, want %d %q %q", x, tt.code, tt.signal, tt.error)
			}
			if started := r.pid != 0; started != (tt.error == "") {
				t.Errorf("started: %v", started)
			}
		})
	}
}

// Bytes of every kind go in and come out, and the end of the input arrives.
func TestExecInput(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	data := make([]byte, 3<<20+17)
	rand.Read(data)
	for _, how := range []string{"close_stdin", "half-close"} {
		start := &wire.ExecStart{Argv: []string{"cat"}, Cwd: "/", Stdin: true}
		r := startRun(t, testContext(t), a, start)
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 50_000)
				r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: rest[:n]}})
				rest = rest[n:]
			}
			if how == "close_stdin" {
				r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_CloseStdin{CloseStdin: true}})
			} else if err := r.st.CloseRequest(); err != nil {
				t.Error(err)
			}
		}()
		if x := r.end(t); x.GetCode() != 0 || !bytes.Equal(r.stdout, data) {
			t.Errorf("%s: exit %v, %d bytes of %d came back", how, x, len(r.stdout), len(data))
		}
	}
}

// A command that does not read its input can be signalled, and one that ends
// early does not hold up who feeds it.
func TestExecInputUnread(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	start := &wire.ExecStart{Argv: []string{"sleep", "1000"}, Cwd: "/", Stdin: true}
	r := startRun(t, testContext(t), a, start)
	for range 4 {
		r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: make([]byte, 60_000)}})
	}
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Signal{Signal: "TERM"}})
	if x := r.end(t); x.GetCode() != 143 || x.GetSignal() != "TERM" {
		t.Errorf("exit %v", x)
	}

	r = startRun(t, testContext(t), a, &wire.ExecStart{Argv: []string{"sh", "-c", "exec <&-; echo closed; sleep 0.2; exit 3"}, Cwd: "/", Stdin: true})
	r.until(t, func() bool { return len(r.stdout) > 0 })
	for range 100 {
		r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: make([]byte, 60_000)}})
	}
	if x := r.end(t); x.GetCode() != 3 {
		t.Errorf("exit %v", x)
	}
}

// A signal reaches the whole group.
func TestExecSignal(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	r := startRun(t, testContext(t), a, sh("trap 'echo got; wait; exit 7' INT; (trap - INT; sleep 1000) & echo up; wait"))
	r.until(t, func() bool { return len(r.stdout) > 0 })
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Signal{Signal: "USR1"}})
	if x := r.end(t); x.GetSignal() != "USR1" || x.GetCode() != 128+int32(syscall.SIGUSR1) {
		t.Errorf("exit %v", x)
	}
	r = startRun(t, testContext(t), a, sh("sleep 1000"))
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Signal{Signal: "NONE"}})
	for {
		if _, err := r.st.Receive(); err != nil {
			if !strings.Contains(err.Error(), "no signal") {
				t.Errorf("got %v", err)
			}
			break
		}
	}
}

// A child in the background that holds the output does not keep the command
// running; what it writes at once still comes, and it is not killed.
func TestExecBackground(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	began := time.Now()
	r := startRun(t, testContext(t), a, sh("(sleep 0.05; echo late; exec sleep 1000) & echo $!"))
	if x := r.end(t); x.GetCode() != 0 {
		t.Errorf("exit %v", x)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	var pid int
	var late string
	if _, err := fmt.Sscan(string(r.stdout), &pid, &late); err != nil || late != "late" {
		t.Fatalf("stdout %q: %v", r.stdout, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the child has gone: %v", err)
	}
}

// All of a large output comes, though the command has ended before it is read.
func TestExecSlowReader(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ended := filepath.Join(t.TempDir(), "ended")
	const size = 300_000 // more than the stream's window holds, with the pipe
	r := startRun(t, testContext(t), a, sh(fmt.Sprintf("head -c %d /dev/zero; (exec sleep 1000) & echo $! > %s", size, ended)))
	waitFor(t, func() bool {
		_, err := os.Stat(ended)
		return err == nil
	})
	waitFor(t, gone(r, t))
	x := r.end(t)
	if len(r.stdout) != size || x.GetCode() != 0 {
		t.Errorf("%d bytes, %v", len(r.stdout), x)
	}
	var pid int
	b, _ := os.ReadFile(ended)
	if _, err := fmt.Sscan(string(b), &pid); err == nil {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// gone reports whether the command's process has ended.
func gone(r *run, t *testing.T) func() bool {
	r.until(t, func() bool { return r.pid != 0 })
	return func() bool { return errors.Is(syscall.Kill(r.pid, 0), syscall.ESRCH) }
}

// waitFor waits until ok, looking often, or fails the test.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		if pause(ctx, 2*time.Millisecond) != nil {
			t.Fatal("waited too long")
		}
	}
}

// A client that goes takes the command's process group with it.
func TestExecBroken(t *testing.T) {
	for _, tty := range []*wire.Terminal{nil, {}} {
		a := dialAgent(t, ServeOptions{})
		ctx, cancel := context.WithCancel(testContext(t))
		start := sh("trap '' HUP TERM; sleep 1000 & echo $!; wait")
		start.Tty = tty
		r := startRun(t, ctx, a, start)
		r.until(t, func() bool { return bytes.HasSuffix(r.stdout, []byte("\n")) })
		var child int
		if _, err := fmt.Sscan(string(r.stdout), &child); err != nil {
			t.Fatal(err)
		}
		cancel()
		for _, pid := range []int{r.pid, child} {
			waitFor(t, func() bool { return ended(pid) })
		}
	}
}

// ended reports whether a process has ended; whoever has to may not have
// reaped it.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestExecTerminal(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	start := sh("trap 'stty size' WINCH; stty size; echo $TERM; until read line; do :; done; echo got $line; read line; exit 5")
	start.Tty = &wire.Terminal{Term: "vt220", Size: &wire.WindowSize{Rows: 24, Cols: 100_000}}
	start.Stdin = true
	r := startRun(t, testContext(t), a, start)
	r.until(t, func() bool { return bytes.Contains(r.stdout, []byte("vt220")) })
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Resize{Resize: &wire.WindowSize{Rows: 50, Cols: 132}}})
	r.until(t, func() bool { return bytes.Contains(r.stdout, []byte("50 132\r\n")) })
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: []byte("hello\n")}})
	r.until(t, func() bool { return bytes.Contains(r.stdout, []byte("got hello")) })
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_CloseStdin{CloseStdin: true}})
	if x := r.end(t); x.GetCode() != 5 {
		t.Errorf("exit %v", x)
	}
	if !bytes.HasPrefix(r.stdout, []byte("24 65535\r\nvt220\r\n")) {
		t.Errorf("terminal gave %q", r.stdout)
	}
}

// Ctrl-C on a terminal reaches the job in front, though it is in a group of
// its own.
func TestExecTerminalInterrupt(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	start := sh("set -m; sleep 1000; echo ended $?")
	start.Tty = &wire.Terminal{}
	r := startRun(t, testContext(t), a, start)
	r.until(t, func() bool { return r.pid != 0 })
	waitFor(t, func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.pid))
		f := strings.Fields(string(b))
		return len(f) > 7 && f[7] != f[4] && f[7] != "-1" // the terminal's group is not the shell's
	})
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Signal{Signal: "INT"}})
	x := r.end(t)
	if x.GetCode() != 0 && x.GetCode() != 130 || !bytes.Contains(r.stdout, []byte("ended 130")) && x.GetCode() == 0 {
		t.Errorf("exit %v, %q", x, r.stdout)
	}
}

// The files that a command gets are its own: blocking, and no other is open.
func TestExecFiles(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	start := sh("for i in 0 1 2; do grep flags /proc/self/fdinfo/$i <&0; done; exec ls -l /proc/self/fd")
	start.Stdin = true
	r := startRun(t, testContext(t), a, start)
	if x := r.end(t); x.GetCode() != 0 {
		t.Fatalf("exit %v, stderr %q", x, r.stderr)
	}
	var n int
	for line := range strings.Lines(string(r.stdout)) {
		if digits, ok := strings.CutPrefix(line, "flags:"); ok {
			var flags int
			if _, err := fmt.Sscanf(strings.TrimSpace(digits), "%o", &flags); err != nil || flags&syscall.O_NONBLOCK != 0 {
				t.Errorf("descriptor %d: flags %s", n, digits)
			}
			n++
		}
		for _, ours := range []string{"socket:", "anon_inode:", "ptmx"} {
			if strings.Contains(line, ours) {
				t.Errorf("the command has open %s", line)
			}
		}
	}
	if n != 3 {
		t.Errorf("got %q", r.stdout)
	}
}

// Many at once: no exit code is lost or mistaken.
func TestExecMany(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ctx := testContext(t)
	var runs []*run
	for i := range 60 {
		runs = append(runs, startRun(t, ctx, a, sh(fmt.Sprintf("exit %d", i))))
	}
	for i, r := range runs {
		if x := r.end(t); x.GetCode() != int32(i) {
			t.Errorf("command %d: exit %v", i, x)
		}
	}
}

func TestExecNonsense(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	for _, m := range []*wire.ExecRequest{
		{},
		{Msg: &wire.ExecRequest_Stdin{Stdin: []byte("x")}},
		{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{}}},
	} {
		st := a.Exec(testContext(t))
		st.Send(m)
		if r, err := st.Receive(); err == nil {
			t.Errorf("%v: got %v", m, r)
		}
	}
	if x := startRun(t, testContext(t), a, &wire.ExecStart{Argv: []string{"true", "\x00"}, Cwd: "/"}).end(t); x.GetCode() != 126 {
		t.Errorf("argument with a NUL: exit %v", x)
	}
}
