package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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

// launch starts a supervisor, or one that rehearses first, as a spare.
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
	if spare {
		cmd.Args = append(cmd.Args, s.run)
	}
	if err := s.spawn.startApart(cmd); err != nil {
		u.close()
		return nil, fmt.Errorf("start its supervisor: %w", err)
	}
	return u, nil
}

// idleNice is the lowest priority (setpriority(2)).
const idleNice = 19

// setPriority gives this process a priority, thread by thread, for each has its own.
func setPriority(nice int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
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
		return st, goneError{err}
	case f.kind != frameOK:
		return st, errors.New(string(f.data))
	}
	return st, json.Unmarshal(f.data, &st)
}

// goneError is the error of a supervisor that ended without a word.
type goneError struct{ error }

func (e goneError) Error() string { return "its supervisor ended: " + e.error.Error() }

// supervise starts a session: with the supervisor that is ready, if there is one.
func (s *sessions) supervise(ctx context.Context, spec *sessionSpec) (sessiondir.Status, error) {
	told, err := json.Marshal(spec)
	if err != nil {
		return sessiondir.Status{}, err
	}
	defer s.spare.prepare(s)
	if u := s.spare.take(); u != nil {
		st, err := u.begin(ctx, told)
		// One that listens may have started the command already.
		if _, listens := os.Lstat(spec.Socket); !errors.As(err, new(goneError)) || ctx.Err() != nil || listens == nil {
			return st, err
		}
	}
	u, err := s.launch(false)
	if err != nil {
		return sessiondir.Status{}, err
	}
	return u.begin(ctx, told)
}
