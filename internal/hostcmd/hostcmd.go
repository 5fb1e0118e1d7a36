// Package hostcmd runs programs of the host: argument lists only, never a
// shell, with what they said on their error output in the error.
package hostcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger/internal/errkind"
)

// maxStderr is how much of a program's error output an error keeps: its end.
const maxStderr = 4 << 10

// killAfter is how long a program that was asked to end may take to do so.
const killAfter = 5 * time.Second

// Cmd is one run of a program. Argv is required.
type Cmd struct {
	Argv   []string  // Argv[0] is looked up in PATH
	Dir    string    // empty: the caller's
	Env    []string  // nil: PATH, LC_ALL=C.UTF-8 and HOME alone
	Stdin  io.Reader // nil: /dev/null
	Stdout io.Writer // nil: returned by Run
	// Line, if not nil, is called with each line of the program's error
	// output as it comes, without its newline. It must not block.
	Line func(string)
	// Tied makes the program die when this process does, however that
	// happens. What it has started lives on.
	Tied bool
	// Credential is who the program runs as; nil: the caller.
	Credential *Credential
}

// ExitError says that a program ran and ended badly.
type ExitError struct {
	Argv   []string
	Code   int    // exit status, or 128+n for signal n
	Stderr string // the end of its error output, trimmed
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s: exit status %d", e.Argv[0], e.Code)
	if e.Stderr != "" {
		msg += ": " + lastLines(e.Stderr, 3)
	}
	return msg
}

// Run runs the program and returns its standard output, if Cmd.Stdout is nil.
// A program that ends badly gives an [*ExitError]; one that is not there an
// error of kind [errkind.Host]. When ctx ends, the program and all it started
// are sent SIGTERM, later SIGKILL, and the error is that of ctx.
func (c Cmd) Run(ctx context.Context) ([]byte, error) {
	path, err := Look(c.Argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, c.Argv[1:]...)
	cmd.Args[0] = c.Argv[0]
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	if cmd.Env == nil {
		cmd.Env = Env()
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	tail := &tailWriter{line: c.Line}
	cmd.Stderr = tail
	// A group of its own, so that what it started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.Credential != nil {
		cmd.SysProcAttr.Credential = c.Credential.sys()
	}
	if c.Tied {
		// The kernel sends it when the thread that forked ends (prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	err = cmd.Run()
	tail.flush()
	if ctx.Err() != nil && err != nil {
		if cmd.Process != nil {
			// What is left of the group; none is fine.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		return nil, fmt.Errorf("%s: %w", c.Argv[0], context.Cause(ctx))
	}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		code := ee.ExitCode()
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return out.Bytes(), &ExitError{c.Argv, code, strings.TrimSpace(string(tail.kept))}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Argv[0], err)
	}
	return out.Bytes(), nil
}

// Run runs a program with an argument list and nothing else; see [Cmd.Run].
func Run(ctx context.Context, argv ...string) ([]byte, error) {
	return Cmd{Argv: argv}.Run(ctx)
}

// Look finds a program in PATH. If it is not there, the error is of kind
// [errkind.Host].
func Look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	// Where a daemon's PATH lacks the directories of the administrator.
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(dir + "/" + name); err == nil && !strings.Contains(name, "/") {
			return p, nil
		}
	}
	return "", errkind.New(errkind.Host, "program %s is not installed", name)
}

// Env is the environment programs get: nothing of the caller's but PATH and
// HOME, and a locale that does not translate messages.
func Env() []string {
	env := []string{"LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if home := os.Getenv("HOME"); home != "" {
		env = append(env, "HOME="+home)
	}
	return env
}

// tailWriter keeps the end of what is written to it and hands on its lines.
type tailWriter struct {
	kept []byte
	part []byte // of a line
	line func(string)
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p...)
	if len(w.kept) > maxStderr {
		w.kept = w.kept[len(w.kept)-maxStderr:]
	}
	if w.line != nil {
		w.part = append(w.part, p...)
		for {
			i := bytes.IndexByte(w.part, '\n')
			if i < 0 {
				break
			}
			w.line(string(w.part[:i]))
			w.part = w.part[i+1:]
		}
		if len(w.part) > maxStderr { // a line without end
			w.flush()
		}
	}
	return len(p), nil
}

func (w *tailWriter) flush() {
	if w.line != nil && len(w.part) > 0 {
		w.line(string(w.part))
		w.part = nil
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
