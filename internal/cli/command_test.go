package cli

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A running is a banger that a test talks to.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	errs bytes.Buffer
}

// start runs banger in a root with three pipes.
func start(t *testing.T, root string, args ...string) *running {
	t.Helper()
	return startProgram(t, program(root, args...))
}

func startProgram(t *testing.T, c *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: c}
	r.cmd.Stderr = &r.errs
	in, err := r.cmd.StdinPipe()
	must(t, err)
	out, err := r.cmd.StdoutPipe()
	must(t, err)
	r.in, r.out = in, bufio.NewReader(out)
	must(t, r.cmd.Start())
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// wantLine reads a line of output.
func (r *running) wantLine(want string) {
	r.t.Helper()
	if line, err := r.out.ReadString('\n'); line != want+"\n" {
		r.t.Fatalf("read %q, %v, want %q; stderr: %s", line, err, want, r.errs.String())
	}
}

// wantEnd reads the rest and waits for the end.
func (r *running) wantEnd(code int, out, stderr string) {
	r.t.Helper()
	rest, _ := io.ReadAll(r.out)
	err := r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != code || string(rest) != out {
		r.t.Errorf("exit %d (%v), output %q, want %d, %q; stderr: %s", got, err, rest, code, out, r.errs.String())
	}
	if !strings.Contains(r.errs.String(), stderr) {
		r.t.Errorf("stderr %q, want %q in it", r.errs.String(), stderr)
	}
}

// wantNoMachines checks that nothing is left.
func wantNoMachines(t *testing.T, root string) {
	t.Helper()
	out, err := program(root, "vm", "list", "--json").Output()
	must(t, err)
	var list struct {
		VMs []struct{ Name, State string } `json:"vms"`
	}
	must(t, json.Unmarshal(out, &list))
	if len(list.VMs) > 0 {
		t.Errorf("machines are left: %v", list.VMs)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Streams are byte for byte, both ways at once.
func TestStreams(t *testing.T) {
	t.Parallel()
	root := bed(t)
	data := make([]byte, 4<<20)
	rand.Read(data)
	c := program(root, "vm", "run", "--", "cat")
	c.Stdin = bytes.NewReader(data)
	out, err := c.Output()
	if err != nil || !bytes.Equal(out, data) {
		t.Errorf("%d bytes came back of %d, %v", len(out), len(data), err)
	}
}

// A command that has what it wants from its input ends, whatever else comes.
func TestInputThatNobodyReads(t *testing.T) {
	t.Parallel()
	root := bed(t)
	r := start(t, root, "vm", "run", "-q", "--", "head", "-c", "3")
	go func() {
		for {
			if _, err := r.in.Write(bytes.Repeat([]byte("abc"), 1<<16)); err != nil {
				return
			}
		}
	}()
	r.wantEnd(0, "abc", "")
	wantNoMachines(t, root)
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	root := bed(t)
	// One reaches the command, whose exit code is ours.
	r := start(t, root, "vm", "run", "--", "sh", "-c", "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.05; done")
	r.wantLine("up")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(7, "caught\n", "")
	r = start(t, root, "vm", "run", "--", "sh", "-c", "echo up; exec sleep 100")
	r.wantLine("up")
	must(t, r.cmd.Process.Signal(syscall.SIGTERM))
	r.wantEnd(143, "", "")
	// A second one soon after abandons a command that does not listen.
	r = start(t, root, "vm", "run", "--", "sh", "-c", "trap 'echo deaf' INT; echo up; while :; do sleep 0.05; done")
	r.wantLine("up")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantLine("deaf")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	_ = r.cmd.Wait()
	if code := r.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("abandoned: exit %d; %s", code, r.errs.String())
	}
	// Its machine is gone before we are.
	wantNoMachines(t, root)
}

// Who reads our output and has had enough ends the command.
func TestOutputIsClosed(t *testing.T) {
	t.Parallel()
	root := bed(t)
	c := program(root, "vm", "run", "-q", "--", "yes")
	pr, pw, err := os.Pipe()
	must(t, err)
	var errs bytes.Buffer
	c.Stdout, c.Stderr = pw, &errs
	must(t, c.Start())
	pw.Close()
	if _, err := io.ReadFull(pr, make([]byte, 4)); err != nil {
		t.Errorf("%v; %s", err, errs.String())
	}
	pr.Close()
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 141 || errs.Len() > 0 {
		t.Errorf("exit %d, stderr %q, want 141 and nothing", code, errs.String())
	}
	wantNoMachines(t, root)
}

// The daemon dies under a command: that it may have run is said, and the
// machine is deleted by the next daemon, which is started.
func TestDaemonDies(t *testing.T) {
	t.Parallel()
	root := bed(t)
	r := start(t, root, "vm", "run", "--", "sh", "-c", "echo up; sleep 100")
	r.wantLine("up")
	must(t, killDaemon(root))
	r.wantEnd(125, "", "banger: cannot run sh: the daemon went away")
	if !strings.Contains(r.errs.String(), "; the command may have run\n") {
		t.Errorf("stderr: %s", r.errs.String())
	}
	if err := program(root, "daemon", "status").Run(); err != nil {
		t.Errorf("no daemon was started: %v", err)
	}
	wantNoMachines(t, root)

	r = start(t, root, "vm", "run", "--name", "web", "--json", "--", "sh", "-c", "echo up; sleep 100")
	r.wantLine("up")
	must(t, killDaemon(root))
	r.wantEnd(125, "", `"kind": "internal"`)
	if err := program(root, "vm", "show", "web").Run(); err != nil {
		t.Errorf("the machine with a name is gone: %v", err)
	}
}

// A client that is killed takes its machine with it.
func TestClientDies(t *testing.T) {
	t.Parallel()
	root := bed(t)
	r := start(t, root, "vm", "run", "--", "sh", "-c", "echo up; sleep 100")
	r.wantLine("up")
	must(t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; {
		out, err := program(root, "vm", "list", "--json").Output()
		must(t, err)
		if bytes.Contains(out, []byte(`"vms": []`)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: %s", out)
		}
	}
}

// onTerminal runs banger with a terminal of 30 rows and 100 columns.
func onTerminal(t *testing.T, root string, args ...string) (*os.File, *exec.Cmd) {
	t.Helper()
	return programOnTerminal(t, program(root, args...))
}

func programOnTerminal(t *testing.T, c *exec.Cmd) (*os.File, *exec.Cmd) {
	t.Helper()
	master, err := pty.StartWithSize(c, &pty.Winsize{Rows: 30, Cols: 100})
	must(t, err)
	t.Cleanup(func() { _ = c.Process.Kill(); master.Close() })
	return master, c
}

// readUntil reads from a terminal until what it got has want in it.
func readUntil(t *testing.T, f *os.File, want string) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(want)) {
		n, err := f.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", want, err, got)
		}
	}
	return string(got)
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "daemon", "start").Run())
	f, c := onTerminal(t, root, "vm", "run", "--", "sh", "-c",
		`stty size; echo $TERM; until [ "$(stty size)" = "40 120" ]; do sleep 0.01; done; echo resized; read x; echo "got $x"; trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done`)
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	readUntil(t, f, "30 100\r\nxterm\r\n")
	raw, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	if raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Error("the terminal is not raw while the command runs")
	}
	must(t, pty.Setsize(f, &pty.Winsize{Rows: 40, Cols: 120}))
	readUntil(t, f, "resized\r\n")
	_, err = f.Write([]byte("keys\r"))
	must(t, err)
	readUntil(t, f, "got keys\r\nready\r\n")
	// Ctrl-C is a key like others, and the guest's terminal makes the signal.
	_, err = f.Write([]byte{3})
	must(t, err)
	readUntil(t, f, "caught\r\n")
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
	after, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	if *before != *after {
		t.Errorf("the terminal was left as %+v, was %+v", after, before)
	}
}

// A command learns of each new size of its terminal.
func TestExecResize(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "web").Run())
	f, c := onTerminal(t, root, "vm", "exec", "-t", "web", "--", "sh", "-c",
		`trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done`)
	readUntil(t, f, "30 100\r\n")
	for _, size := range []pty.Winsize{{Rows: 40, Cols: 120}, {Rows: 10, Cols: 20}, {Rows: 50, Cols: 200}} {
		must(t, pty.Setsize(f, &size))
		readUntil(t, f, fmt.Sprintf("%d %d\r\n", size.Rows, size.Cols))
	}
	must(t, c.Process.Kill())
	_ = c.Wait()
}

// Without a command there is a login shell.
func TestShell(t *testing.T) {
	t.Parallel()
	root := bed(t)
	f, c := onTerminal(t, root, "vm", "run")
	_, err := f.Write([]byte("echo $((6*7)); exit 3\r"))
	must(t, err)
	readUntil(t, f, "42\r\n")
	_, _ = io.Copy(io.Discard, f)
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
	r := start(t, root, "run", "-q")
	_, err = r.in.Write([]byte("echo piped; exit 4\n"))
	must(t, err)
	must(t, r.in.Close())
	r.wantEnd(4, "piped\n", "")
}

// The terminal is given back when the daemon dies, and where the command must
// not have it it has none.
func TestTerminalGivenBack(t *testing.T) {
	t.Parallel()
	root := bed(t)
	f, c := onTerminal(t, root, "vm", "run", "--", "sh", "-c", "echo up; sleep 100")
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	readUntil(t, f, "up\r\n")
	must(t, killDaemon(root))
	out := readUntil(t, f, "may have run\r\n")
	if !strings.Contains(out, "banger: cannot run sh: ") {
		t.Errorf("said %q", out)
	}
	_ = c.Wait()
	after, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	if *before != *after {
		t.Errorf("the terminal was left as %+v, was %+v", after, before)
	}
	f, c = onTerminal(t, root, "vm", "run", "--no-tty", "--", "sh", "-c", "test -t 0 || echo none")
	readUntil(t, f, "none\r\n")
	must(t, c.Wait())
	r := start(t, root, "vm", "run", "-q", "--tty", "--", "sh", "-c", "test -t 0 && stty size")
	r.wantEnd(0, "24 80\r\n", "")
}

// A terminal shows what is being done, and none of it is left when output
// comes.
func TestTerminalProgress(t *testing.T) {
	t.Parallel()
	root := bed(t)
	f, c := onTerminal(t, root, "vm", "run", "--timeout", "1500ms", "--no-tty", "--", "sh", "-c", "sleep 0.5; echo out")
	got := readUntil(t, f, "out\r\n")
	must(t, c.Wait())
	before, _, _ := strings.Cut(got, "out\r\n")
	if i := strings.LastIndex(before, "\x1b[K"); i >= 0 && strings.TrimPrefix(before[i+3:], "\r") != "" {
		t.Errorf("output on a line with progress: %q", got)
	}
	f, c = onTerminal(t, root, "vm", "list")
	got = readUntil(t, f, "banger vm run\r\n")
	if strings.Contains(got, "daemon") {
		t.Errorf("what is quick showed progress: %q", got)
	}
	must(t, c.Wait())
}

// A bug once: a context's end did not reach the daemon while the command's
// input was open.
func TestTimeoutWithOpenInput(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "daemon", "start").Run())
	r := start(t, root, "vm", "run", "--timeout", "1s", "--", "sleep", "100")
	began := time.Now()
	r.wantEnd(124, "", "not done within 1s; the command may have run")
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("took %s", d)
	}
	wantNoMachines(t, root)
}

// What is not there to be written to is no success.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	c := program(t.TempDir(), "version")
	var errs bytes.Buffer
	c.Stdout, c.Stderr = full, &errs
	err = c.Run()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("%v, %s", err, errs.String())
	}
}
