package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// exitLocked is what bangerd exits with when another daemon has the root.
const exitLocked = 75

// retryAfter is how long to wait for an unknown holder of the lock.
const retryAfter = 100 * time.Millisecond

// maxLog is how much of what a daemon logged before it ended is looked at for
// its last words, in bytes.
const maxLog = 64 << 10

// starter brings up one daemon.
type starter struct {
	Options
	plain bool // without systemd, which did not want to
}

// run starts daemons until one takes connections or says why not.
//
// Who comes second finds the lock taken (exit 75) and waits for whoever has
// it: for that one's socket, or its end, if it was on its way out.
func (s *starter) run(ctx context.Context) error {
	// Ends every watch with this function.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var changes <-chan struct{} // in the socket's directory
	for {
		if changes == nil {
			var err error
			// The mode is the one that the daemon gives it.
			if changes, err = watchDir(ctx, s.Paths.SocketDir(), 0o750); err != nil {
				return err
			}
		}
		p, err := s.start()
		if err != nil {
			return err
		}
		for running := true; running; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case _, ok := <-changes:
				if !ok {
					changes = nil // the directory has gone; watch it anew
					if changes, err = watchDir(ctx, s.Paths.SocketDir(), 0o750); err != nil {
						return err
					}
				}
				if s.served(ctx, p) {
					return nil
				}
			case <-p.ended:
				running = false
			}
		}
		if done, err := s.afterEnd(ctx, p, changes); done || err != nil {
			return err
		}
	}
}

// served reports whether a daemon takes connections. If it is another than the one
// that we started, ours is ended, which has not come to look at the lock yet: were
// the other stopped meanwhile, it would take its place when nobody wants one.
func (s *starter) served(ctx context.Context, p *process) bool {
	c := New(s.Paths.Socket())
	defer c.Close()
	st, err := c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{Brief: true}))
	if err != nil {
		return false
	}
	if int(st.Msg.Pid) != p.child.Pid {
		_ = p.child.Kill() // an error: it has ended
		<-p.ended
	}
	return true
}

// afterEnd deals with a daemon that we started and that has ended. It reports
// whether there is one that takes connections.
func (s *starter) afterEnd(ctx context.Context, p *process, changes <-chan struct{}) (bool, error) {
	if probe(ctx, s.Paths) == nil {
		return true, nil
	}
	switch code := p.code; {
	case code == exitLocked:
		return s.waitForOther(ctx, changes)
	case p.scoped && !s.plain && !bytes.Contains(p.log(), []byte("bangerd: ")):
		s.plain = true // systemd-run itself failed
		return false, nil
	default:
		return false, p.failure()
	}
}

// waitForOther waits for the daemon that has the lock. It reports whether that
// one takes connections; otherwise the lock is, or soon will be, free.
func (s *starter) waitForOther(ctx context.Context, changes <-chan struct{}) (bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var gone <-chan struct{}
	var again <-chan time.Time
	pid, known := holder(s.Paths.Lock())
	if known {
		var err error
		if gone, err = watchProcess(ctx, pid); err != nil {
			return false, err
		}
	} else {
		again = time.After(retryAfter)
	}
	for {
		if probe(ctx, s.Paths) == nil {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case _, ok := <-changes:
			if !ok {
				return false, nil // the other removed its directories: it is leaving
			}
		case <-gone:
			return false, nil
		case <-again:
			return false, nil
		}
	}
}

// process is a daemon that we started.
type process struct {
	child   *os.Process
	ended   chan struct{} // closed when it has
	code    int           // valid then
	scoped  bool          // it was started by systemd-run
	logPath string
	logFrom int64 // where in the log its own words begin
}

func (s *starter) start() (*process, error) {
	path, err := s.program()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Paths.State, 0o711); err != nil {
		return nil, err
	}
	argv := []string{path}
	if s.Paths.Root != "" {
		argv = append(argv, "--root", s.Paths.Root)
	}
	p := &process{ended: make(chan struct{}), logPath: s.Paths.DaemonLog()}
	if run, err := hostcmd.Look("systemd-run"); err == nil && s.Systemd && !s.plain {
		p.scoped = true
		// A scope, not a service: the daemon stays our child, and its exit
		// code and last words reach us. Its name is new each time, for the
		// machines that a daemon started keep its scope alive.
		unit := fmt.Sprintf("--unit=banger-%s-%d", s.Paths.Tag, time.Now().UnixNano())
		argv = append([]string{run, "--scope", "--quiet", "--collect", unit, "--"}, argv...)
	}
	if fi, err := os.Stat(p.logPath); err == nil {
		p.logFrom = fi.Size()
	}
	child, err := hostcmd.Detached{Argv: argv, Dir: "/", Env: append(hostcmd.Env(), s.Env...), Log: p.logPath}.Start()
	if err != nil {
		return nil, err
	}
	p.child = child
	go func() {
		defer close(p.ended)
		st, err := child.Wait()
		if p.code = -1; err == nil {
			p.code = st.ExitCode()
		}
	}()
	return p, nil
}

// program finds bangerd.
func (s *starter) program() (string, error) {
	if s.Bangerd != "" {
		return filepath.Abs(s.Bangerd)
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			if p := filepath.Join(filepath.Dir(self), "bangerd"); executable(p) {
				return p, nil
			}
		}
	}
	p, err := hostcmd.Look("bangerd")
	if err != nil {
		return "", errkind.New(errkind.Host, "bangerd is neither beside banger nor in PATH: install both into the same directory")
	}
	return filepath.Abs(p)
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// log returns what the log got since the process was started.
func (p *process) log() []byte {
	f, err := os.Open(p.logPath)
	if err != nil {
		return nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(p.logFrom, fi.Size()-maxLog)
	text, err := io.ReadAll(io.NewSectionReader(f, from, maxLog))
	if err != nil {
		return nil
	}
	return text
}

// failure is why the daemon ended: its last words, "bangerd: REASON" and lines
// of "hint: COMMAND".
func (p *process) failure() error {
	var reason string
	var hints []string
	for line := range strings.Lines(string(p.log())) {
		line = strings.TrimSpace(line)
		if r, ok := strings.CutPrefix(line, "bangerd: "); ok {
			reason, hints = r, nil
		} else if h, ok := strings.CutPrefix(line, "hint: "); ok && reason != "" {
			hints = append(hints, h)
		}
	}
	if reason == "" {
		reason = fmt.Sprintf("bangerd ended with exit status %d before it served", p.code)
		hints = []string{"tail " + p.logPath}
	}
	kind := errkind.Internal
	switch p.code {
	case 2:
		kind = errkind.Usage
	case 5:
		kind = errkind.Host
	}
	return errkind.WithHint(errkind.New(kind, "%s", reason), hints...)
}
