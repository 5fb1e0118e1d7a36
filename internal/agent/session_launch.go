package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/sessiondir"
)

// An unborn is a supervisor that was not told its session yet. It ends if that
// never comes.
type unborn struct {
	tell *os.File // takes a [sessionSpec] in JSON, up to its end
	says *os.File // gives one frame: frameOK with the status, or frameRefused
}

// await waits until a spare supervisor is ready, which it says by a frame more.
func (u *unborn) await() error {
	_, err := readFrame(u.says)
	return err
}

func (u *unborn) close() {
	u.tell.Close()
	u.says.Close()
}

// launch starts a supervisor; a spare one whenever nobody else wants to run.
func (s *sessions) launch(spare bool) (*unborn, error) {
	in, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	says, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, tell.Close())
	}
	defer out.Close()
	u := &unborn{tell, says}
	cmd := &exec.Cmd{
		Path: selfProgram, Args: supervisorArgs, Dir: "/",
		// A huge page is as much as all of it needs (runtime, disablethp).
		Env:   []string{"GODEBUG=disablethp=1"},
		Stdin: in, Stderr: os.Stderr, ExtraFiles: []*os.File{out},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	start := s.spawn.startApart
	if spare {
		cmd.Args = append(cmd.Args, s.run)
		start = func(cmd *exec.Cmd) error { return whenIdle(func() error { return s.spawn.startApart(cmd) }) }
	}
	if err := start(cmd); err != nil {
		u.close()
		return nil, fmt.Errorf("start its supervisor: %w", err)
	}
	return u, nil
}

// idleNice is the lowest priority (setpriority(2)).
const idleNice = 19

// whenIdle starts a process that runs at the lowest priority, which it inherits
// from the thread that forks it, until it changes that itself.
func whenIdle(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Best effort, both ways: the agent is root in its guest.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, idleNice)
	defer unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
	return start()
}

// hurry gives this process the ordinary priority, thread by thread, for each has its
// own.
func hurry() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, 0)
		}
	}
}

// begin tells a supervisor its session, and returns where that stands: it runs,
// or has ended already.
func (u *unborn) begin(ctx context.Context, told []byte) (st sessiondir.Status, err error) {
	defer u.says.Close()
	go func() {
		// It reads all, or has ended and says no more.
		_, _ = u.tell.Write(told)
		u.tell.Close()
	}()
	defer context.AfterFunc(ctx, func() { u.says.SetReadDeadline(time.Unix(1, 0)) })()
	f, err := readFrame(u.says)
	switch {
	case err != nil:
		return st, errGone{err}
	case f.kind != frameOK:
		return st, errors.New(string(f.data))
	}
	return st, json.Unmarshal(f.data, &st)
}

// errGone is the error of a supervisor that ended without a word.
type errGone struct{ error }

func (e errGone) Error() string { return "its supervisor ended: " + e.error.Error() }

// supervise starts a session: with the supervisor that is ready, if there is one.
func (s *sessions) supervise(ctx context.Context, spec *sessionSpec) (sessiondir.Status, error) {
	told, err := json.Marshal(spec)
	if err != nil {
		return sessiondir.Status{}, err
	}
	defer s.spare.prepare(s)
	if u := s.spare.take(); u != nil {
		st, err := u.begin(ctx, told)
		if !errors.As(err, new(errGone)) || ctx.Err() != nil {
			return st, err
		}
	}
	u, err := s.launch(false)
	if err != nil {
		return sessiondir.Status{}, err
	}
	return u.begin(ctx, told)
}

// A spare is a supervisor that is started ahead, for that is most of what the start
// of a session takes: a program starts, and does everything for the first time.
// There is one for a while after each start.
type spare struct {
	mu    sync.Mutex
	u     *unborn     // nil: there is none
	timer *time.Timer // of what is to become of it
}

const (
	// spareDelay is what a session that has just been started gets first.
	spareDelay = 50 * time.Millisecond
	// spareTime is how long a spare supervisor waits for a session.
	spareTime = 5 * time.Minute
)

// take returns the spare supervisor, if there is one.
func (p *spare) take() *unborn {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.u
	p.u = nil
	return u
}

// prepare sees to it that there will be a spare supervisor soon, for a while.
func (p *spare) prepare(s *sessions) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = time.AfterFunc(spareDelay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.timer = time.AfterFunc(spareTime, p.drop)
		if p.u != nil {
			return
		}
		// What goes wrong is told by the next start, that does without.
		if u, err := s.launch(true); err == nil {
			go p.keep(u)
		}
	})
}

// keep makes a supervisor the spare one as soon as it is ready.
func (p *spare) keep(u *unborn) {
	err := u.await()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.u != nil {
		u.close()
		return
	}
	p.u = u
}

// drop ends the spare supervisor, if there is one.
func (p *spare) drop() {
	if u := p.take(); u != nil {
		u.close()
	}
}
