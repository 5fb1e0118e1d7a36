package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// Stages at which a session fails, and the failure of one whose machine ended.
const (
	stageCheck     = "check" // what it needs is there
	stageStart     = "start" // its supervisor and its command are started
	stageRun       = "run"
	machineStopped = "machine stopped"
)

// A session's input.
const (
	stdinClosed = "closed"
	stdinPipe   = "pipe"
	stdinPTY    = "pty"
)

// A sessionSpec is what a session's supervisor is told: all that the checks
// have found out.
type sessionSpec struct {
	Dir, Socket string
	Path        string
	Args, Env   []string
	Cwd         string
	Credential  *syscall.Credential
	Stdin       string
	Rows, Cols  uint32 // of the terminal, with stdinPTY
	LogLimit    int64  // bytes of each stream
}

// StartSession implements the method of the protocol. The session goes on
// whatever becomes of the call.
func (s service) StartSession(ctx context.Context, req *connect.Request[wire.StartSessionRequest]) (*connect.Response[wire.StartSessionResponse], error) {
	in := req.Msg
	if err := checkStart(in); err != nil {
		return nil, err
	}
	spec, err := s.specify(in)
	if err != nil {
		return started(failedSession(in.Id, stageCheck, err))
	}
	st, err := s.sessions.start(ctx, in.Id, spec)
	if ctx.Err() != nil {
		return nil, connect.NewError(connect.CodeCanceled, ctx.Err()) // whoever asks next is told
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("there is a session %s", in.Id))
	}
	if err != nil {
		return started(failedSession(in.Id, stageStart, err))
	}
	return started(st)
}

// envOf returns a variable of a command's environment.
func envOf(cmd *exec.Cmd, name string) string {
	for _, nv := range cmd.Env {
		if n, value, ok := strings.Cut(nv, "="); ok && n == name {
			return value
		}
	}
	return ""
}

func started(st *wire.SessionStatus) (*connect.Response[wire.StartSessionResponse], error) {
	return connect.NewResponse(&wire.StartSessionResponse{Session: st}), nil
}

func failedSession(id, stage string, err error) *wire.SessionStatus {
	return &wire.SessionStatus{
		Id: id, State: string(sessiondir.Failed), Stage: stage, Message: oneLine(err), EndedNs: time.Now().UnixNano(),
	}
}

func checkStart(in *wire.StartSessionRequest) error {
	if err := checkID(in.Id); err != nil {
		return err
	}
	switch {
	case len(in.Command.GetArgv()) == 0:
		return connect.NewError(connect.CodeInvalidArgument, errors.New("a session without a command"))
	case in.Stdin != stdinClosed && in.Stdin != stdinPipe && in.Stdin != stdinPTY:
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%.40q is no stdin of a session", in.Stdin))
	case in.LogLimitBytes < 0:
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a log of %d bytes", in.LogLimitBytes))
	}
	return nil
}

// specify checks that what a session needs is there, and returns how to run
// it.
func (s *Server) specify(in *wire.StartSessionRequest) (*sessionSpec, error) {
	start := in.Command
	start.Stdin = in.Stdin == stdinPipe
	if in.Stdin != stdinPTY {
		start.Tty = nil
	} else if start.Tty == nil {
		start.Tty = &wire.Terminal{}
	}
	cmd, err := s.command(start)
	if err != nil {
		return nil, err
	}
	for _, name := range in.Required {
		if _, err := findProgram(name, cmd.Dir, envOf(cmd, "PATH")); err != nil {
			return nil, fmt.Errorf("required command %w", err)
		}
	}
	return &sessionSpec{
		Dir: s.sessions.path(in.Id), Socket: s.sessions.socket(in.Id),
		Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Cwd: cmd.Dir, Credential: cmd.SysProcAttr.Credential,
		Stdin: in.Stdin, Rows: start.Tty.GetSize().GetRows(), Cols: start.Tty.GetSize().GetCols(),
		LogLimit: in.LogLimitBytes,
	}, nil
}

// start starts a supervisor and waits until its command runs, has ended
// already, or has failed to start.
func (s *sessions) start(ctx context.Context, id string, spec *sessionSpec) (*wire.SessionStatus, error) {
	if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.MkdirAll(s.run, 0o700)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.path(id), 0o700); err != nil {
		return nil, err
	}
	st, err := s.supervise(ctx, spec)
	if ctx.Err() != nil {
		return nil, ctx.Err() // it may run
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.path(id)))
	}
	return st.Wire(id), nil
}
