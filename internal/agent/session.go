package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// Where sessions are. What is to outlive the machine's stop stands on the work
// disk; sockets stand in memory, and are gone with the boot that they are of.
const (
	sessionDir = "/root/.local/state/banger/sessions"
	sessionRun = "/run/banger/sessions"
)

// sessions are the guest's sessions as the agent sees them: by what their
// supervisors wrote down, and over the sockets that these listen on. The agent
// itself keeps nothing of them, so that it may die and be started again.
type sessions struct {
	dir   string // a directory for each, named after its id
	run   string // a socket for each
	log   *slog.Logger
	spawn spawner
	watch dirWatcher
	spare spare
}

// An unborn session has a directory but no status yet. After unbornTime nobody
// will write one.
const unbornTime = time.Minute

// maxSessions bounds the entries of the directory that are looked at: a guest
// may write there what it likes.
const maxSessions = 10_000

func (s *sessions) path(id string) string   { return filepath.Join(s.dir, id) }
func (s *sessions) socket(id string) string { return filepath.Join(s.run, id) }

// checkID refuses what is no id: it becomes part of a path.
func checkID(id string) error {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%.40q is no id of a session", id))
	}
	return nil
}

// get returns where a session stands; [connect.CodeNotFound] if there is none.
func (s *sessions) get(id string) (*wire.SessionStatus, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	st, err := s.read(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no session %s", id))
	}
	return st, err
}

// read returns where a session stands. What its supervisor wrote last is not
// what is true if the supervisor died since, or the whole machine.
func (s *sessions) read(id string) (*wire.SessionStatus, error) {
	fi, err := os.Lstat(s.path(id))
	if err != nil {
		return nil, err
	}
	dir := sessiondir.OSDir(s.path(id))
	st, err := sessiondir.ReadStatus(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && time.Since(fi.ModTime()) < unbornTime:
		return &wire.SessionStatus{Id: id, State: string(sessiondir.Starting)}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, sessiondir.ErrGarbled):
		st = sessiondir.Status{State: sessiondir.Failed, Stage: stageRun, Message: err.Error(), EndedAt: fi.ModTime()}
	case err != nil:
		return nil, connect.NewError(connect.CodeInternal, err)
	case !st.State.Final() && died(st):
		// It may have ended in good order since.
		if now, err := sessiondir.ReadStatus(dir); err == nil && now.State.Final() {
			return now.Wire(id), nil
		}
		st = correct(st)
	}
	return st.Wire(id), nil
}

// died reports whether a session whose status calls it alive is not.
func died(st sessiondir.Status) bool { return st.BootID != bootID() || !alive(st.Supervisor) }

// correct is the status of a session that died.
func correct(st sessiondir.Status) sessiondir.Status {
	st.State, st.Stage, st.StdinOpen = sessiondir.Failed, stageRun, false
	st.Message = "its supervisor was killed"
	if st.BootID != bootID() {
		st.Message = machineStopped
	}
	return st
}

// ids returns the ids of all sessions that there are.
func (s *sessions) ids() ([]string, error) {
	d, err := os.Open(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxSessions)
	if err != nil && !errors.Is(err, io.EOF) { // EOF: there is none
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return checkID(name) != nil }), nil
}
