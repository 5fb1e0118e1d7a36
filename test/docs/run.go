package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// interrupt is the line that interrupts a command.
const interrupt = "^C"

// Run runs a page's examples one after another, with dir as their working
// directory, and stops at the first that is not as shown. Shell returns the
// command that runs a script; it ends with its context.
func (p Page) Run(t testing.TB, dir string, shell func(ctx context.Context, script string) *exec.Cmd) {
	t.Helper()
	for _, e := range p.Examples {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		c := shell(ctx, e.Command)
		c.Dir = dir
		began := time.Now()
		err := e.run(c)
		cancel()
		t.Logf("%s:%d: %.1f s: %s", p.Name, e.Line, time.Since(began).Seconds(), e.Command)
		if err != nil {
			t.Fatalf("%s:%d: %s\n%v", p.Name, e.Line, e.Command, err)
		}
	}
}

// run runs the command that an example is and says how it differs.
func (e Example) run(c *exec.Cmd) error {
	want, stop := e.Want, slices.Index(e.Want, interrupt)
	out := &screen{}
	if stop >= 0 {
		want = e.Want[:stop]
		out.seen, out.reached = func(lines []string) bool { return match(want, lines) }, make(chan struct{})
	}
	c.Stdout, c.Stderr = out, out
	c.WaitDelay = 10 * time.Second
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Setpgid = true // for ^C, which reaches all that it started
	if err := c.Start(); err != nil {
		return err
	}
	if stop < 0 {
		return e.compare(want, out, c.Wait())
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("it ended (%v) before it was interrupted, after\n%s", err, out)
	case <-out.reached:
	}
	return interruptUntil(c.Process.Pid, ended)
}

// interruptUntil interrupts a process group until its leader has ended, as it
// likes. A person at a terminal presses ^C again, too: dash forgets one that
// comes between its last output and the exec of its last command.
func interruptUntil(pid int, ended <-chan error) error {
	for {
		if err := syscall.Kill(-pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		select {
		case <-ended:
			return nil
		case <-time.After(time.Second):
		}
	}
}

// compare says how what was printed, or the end, differs from what is shown.
func (e Example) compare(want []string, out *screen, err error) error {
	if len(want) > 0 && !match(want, out.lines()) {
		return fmt.Errorf("printed\n%sshown is\n%s\n(%v)", out, strings.Join(want, "\n"), err)
	}
	if err != nil && !slices.ContainsFunc(want, isError) {
		return fmt.Errorf("%w; printed\n%s", err, out)
	}
	return nil
}

// isError reports whether a line that is shown is an error of banger's.
func isError(line string) bool {
	return strings.HasPrefix(line, "banger: ") && !strings.HasPrefix(line, "banger: warning: ")
}

// isProgress reports whether a line may be left out of what is shown.
func isProgress(line string) bool {
	return isError(line) && !strings.HasPrefix(line, "banger: cannot ")
}

// match reports whether what was printed is what is shown.
func match(want, got []string) bool {
	switch {
	case len(want) == 0 && len(got) == 0:
		return true
	case len(want) > 0 && strings.TrimSpace(want[0]) == "…":
		if match(want[1:], got) {
			return true
		}
		return len(got) > 0 && match(want, got[1:])
	case len(got) == 0:
		return false
	case len(want) > 0 && matchLine(want[0], got[0]) && match(want[1:], got[1:]):
		return true
	}
	return isProgress(got[0]) && match(want, got[1:])
}

// matchLine reports whether a line is the one that is shown.
func matchLine(want, got string) bool {
	want, got = strings.Join(strings.Fields(want), " "), strings.Join(strings.Fields(got), " ")
	// A column that is shown as "…" may be empty.
	want = strings.NewReplacer(" … ", "…", " …", "…", "… ", "…").Replace(want)
	parts := strings.Split(want, "…")
	got, ok := strings.CutPrefix(got, parts[0])
	if len(parts) == 1 {
		return ok && got == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(got, part)
		got, ok = after, ok && found
	}
	return ok && strings.HasSuffix(got, parts[len(parts)-1])
}

// A screen is what was printed. Its methods may be called concurrently.
type screen struct {
	seen    func(lines []string) bool // nil: nothing is waited for
	reached chan struct{}             // closed when seen was true

	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p)
	if s.seen != nil && s.seen(split(s.buf.String())) {
		s.seen = nil
		close(s.reached)
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) lines() []string { return split(s.String()) }

// split returns the lines of a text, without the blank ones.
func split(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
}
