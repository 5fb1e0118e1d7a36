package hostcmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

func TestRun(t *testing.T) {
	var lines []string
	out, err := Cmd{
		Argv:  []string{"sh", "-c", "cat; echo one >&2; printf two >&2"},
		Stdin: strings.NewReader("in"),
		Line:  func(l string) { lines = append(lines, l) },
	}.Run(t.Context())
	if err != nil || string(out) != "in" || strings.Join(lines, ",") != "one,two" {
		t.Errorf("Run = %q, %v, lines %q", out, err, lines)
	}
}

func TestRunEndsBadly(t *testing.T) {
	_, err := Run(t.Context(), "sh", "-c", "echo why >&2; exit 42")
	var ee *ExitError
	if !errors.As(err, &ee) || ee.Code != 42 || err.Error() != "sh: exit status 42: why" {
		t.Errorf("Run = %v", err)
	}
	_, err = Run(t.Context(), "sh", "-c", "kill -9 $$")
	if !errors.As(err, &ee) || ee.Code != 137 {
		t.Errorf("Run of a killed program = %v, want code 137", err)
	}
	_, err = Run(t.Context(), "no-such-program")
	if errkind.Of(err) != errkind.Host || err.Error() != "program no-such-program is not installed" {
		t.Errorf("Run = %v", err)
	}
}

// What a program started ends with it when the caller gives up.
func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(t.TempDir(), "started")
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(fifo); err == nil {
				return
			}
		}
	}()
	start := time.Now()
	_, err := Run(ctx, "sh", "-c", "sleep 100 & touch "+fifo+"; wait")
	if !errors.Is(err, context.Canceled) || time.Since(start) > 4*time.Second {
		t.Errorf("Run = %v after %v", err, time.Since(start))
	}
}

func TestDetached(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	p, err := Detached{
		Argv: []string{"/bin/sh", "-c", "pwd; ls /proc/self/fd | wc -l; ps -o sid= -p $$ | tr -d ' '; echo $$"},
		Dir:  dir, Log: log,
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(log)
	f := strings.Fields(string(out))
	// ls holds 0, 1, 2 and the directory it reads.
	if err != nil || len(f) != 4 || f[0] != dir || f[1] != "4" || f[2] != f[3] {
		t.Errorf("detached process said %q, %v", out, err)
	}
}

// A log that is handed over open is written to, whatever stands at a name.
func TestDetachedLogFile(t *testing.T) {
	dir := t.TempDir()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	moved := filepath.Join(dir, "moved")
	if err := os.Rename(log.Name(), moved); err != nil {
		t.Fatal(err)
	}
	p, err := Detached{
		Argv: []string{"/bin/sh", "-c", "echo out; echo err >&2"},
		Dir:  dir, Log: filepath.Join(dir, "other"), LogFile: log,
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.WriteString("still open\n"); err != nil {
		t.Error(err)
	}
	out, err := os.ReadFile(moved)
	if err != nil || string(out) != "out\nerr\nstill open\n" {
		t.Errorf("the log holds %q, %v", out, err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("a log was opened by name: %v (%v)", es, err)
	}
}

// Output and errors may go two ways.
func TestDetachedOutput(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log := out.Name() + ".log"
	p, err := Detached{Argv: []string{"/bin/sh", "-c", "echo out; echo err >&2"}, Log: log, Output: out}.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{out.Name(): "out\n", log: "err\n"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", filepath.Base(path), got, err)
		}
	}
}

// One that is idle has that scheduling policy, and what it starts has it too.
func TestDetachedIdle(t *testing.T) {
	for _, tt := range []struct {
		idle   bool
		policy uint32
	}{{false, unix.SCHED_NORMAL}, {true, unix.SCHED_IDLE}} {
		p, err := Detached{
			Argv: []string{"/bin/sleep", "60"}, Dir: "/", Log: filepath.Join(t.TempDir(), "log"), Idle: tt.idle,
		}.Start()
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(p.Pid, 0)
		if err != nil || attr.Policy != tt.policy {
			t.Errorf("idle %t: policy %d, %v, want %d", tt.idle, attr.Policy, err, tt.policy)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
