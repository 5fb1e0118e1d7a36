package sessiondir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"banger/internal/atomicfile"
)

// ErrGarbled is what reading a status returns that is there, but is none.
var ErrGarbled = errors.New("garbled")

// State says how far a session has come.
type State string

// A session is starting, then running or failed; it is stopping from the
// moment that it was asked to end until it has exited.
const (
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Exited   State = "exited"
	Failed   State = "failed"
)

// Final reports whether a session in this state has ended.
func (s State) Final() bool { return s == Exited || s == Failed }

// A Process is one of the guest. Start is its start time in clock ticks since
// the guest booted (proc_pid_stat(5), field 22): without that, and the boot id,
// a pid proves nothing. It is zero if there is none.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Status is what a supervisor says of its session.
type Status struct {
	State      State   `json:"state"`
	BootID     string  `json:"boot_id,omitempty"` // the guest kernel's, random(4)
	Supervisor Process `json:"supervisor,omitzero"`
	Command    Process `json:"command,omitzero"` // zero until it runs

	Code    int    `json:"code"`              // the command's exit code; 128+n if signal n ended it
	Signal  string `json:"signal,omitempty"`  // what ended it, such as "KILL", or the number of one without a name
	Stage   string `json:"stage,omitempty"`   // of a failed session: what was being done, such as "check"
	Message string `json:"message,omitempty"` // of a failed session: why, in one line

	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	StdinOpen bool      `json:"stdin_open"` // its stdin can still be written
}

const (
	statusFile = "status"
	spareFile  = "status.spare"
	maxWritten = 8 << 10  // bytes of what we write: in JSON a character may take six (encoding/json, "<")
	maxStatus  = 16 << 10 // bytes of its file
	maxStage   = 64       // bytes
	maxMessage = 1 << 10  // bytes
	maxPID     = 1 << 22  // PID_MAX_LIMIT, include/linux/threads.h
)

var (
	bootID     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	signalName = regexp.MustCompile(`^[A-Z0-9][A-Z0-9+-]{0,15}$`)
)

// ReadStatus returns the status in a session's directory, its times in UTC.
// All of it is within bounds: texts are short and printable, so they can be
// shown as they are. [fs.ErrNotExist] means that there is none, [ErrGarbled]
// that what is there cannot be used. It may be called concurrently.
func ReadStatus(d Dir) (Status, error) {
	data, err := readSmall(d, statusFile, maxStatus)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	var s Status
	if err := json.Unmarshal(data, &s); err != nil {
		return Status{}, garbled(err)
	}
	if err := s.check(); err != nil {
		return Status{}, garbled(err)
	}
	s.StartedAt, s.EndedAt = s.StartedAt.UTC(), s.EndedAt.UTC()
	return s, nil
}

// garbled says what is wrong with a status; the cause may hold bytes of it.
func garbled(err error) error {
	return fmt.Errorf("read status: %w: %s", ErrGarbled, clean(err.Error(), 200))
}

// readSmall returns a file's content, of at most limit bytes.
func readSmall(d Dir, name string, limit int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrGarbled, limit)
	}
	return data, nil
}

// Reserve keeps room on the disk for one status, so that how a session ended can
// be told also when the disk is full. It does not wait for the disk: a file
// system sets the room aside when it is asked for.
func Reserve(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, spareFile), make([]byte, maxWritten), 0o600); err != nil {
		return fmt.Errorf("reserve room for a status: %w", err)
	}
	return nil
}

// Write stores a status in a session's directory, for its owner alone: who
// reads it sees the status before or this one, also after a crash. Stage and
// Message are cut and made printable; what is out of range otherwise is an
// error, and the status before stands. On a full disk it takes the room that
// [Reserve] keeps.
func (s Status) Write(dir string) error {
	return s.store(dir, func(path string, data []byte, mode os.FileMode) error {
		err := atomicfile.Write(path, data, mode)
		if errors.Is(err, syscall.ENOSPC) {
			return useSpare(dir, data)
		}
		return err
	})
}

// Replace is [Status.Write] of a status that need not survive a crash: one of a
// session that goes on has no meaning after it. It leaves the room that is kept.
func (s Status) Replace(dir string) error { return s.store(dir, atomicfile.Replace) }

// store writes a status in one of the ways of atomicfile.
func (s Status) store(dir string, write func(string, []byte, os.FileMode) error) error {
	s.Stage, s.Message = clean(s.Stage, maxStage), clean(s.Message, maxMessage)
	s.StartedAt, s.EndedAt = s.StartedAt.UTC(), s.EndedAt.UTC()
	if err := s.check(); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	data = append(data, '\n')
	err = write(filepath.Join(dir, statusFile), data, 0o600)
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

// useSpare writes a status into the room that is kept, and makes that the
// status.
func useSpare(dir string, data []byte) error {
	spare := filepath.Join(dir, spareFile)
	f, err := os.OpenFile(spare, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err = errors.Join(err, f.Truncate(int64(len(data))), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(spare, filepath.Join(dir, statusFile)); err != nil {
		return err
	}
	return atomicfile.SyncDir(dir)
}

// check reports the first thing that no supervisor would write.
func (s Status) check() error {
	switch s.State {
	case Starting, Running, Stopping, Exited, Failed:
	default:
		return fmt.Errorf("there is no state %q", clean(string(s.State), maxStage))
	}
	switch {
	case s.BootID != "" && !bootID.MatchString(s.BootID):
		return errors.New("boot_id is none")
	case !s.Supervisor.valid():
		return fmt.Errorf("supervisor cannot have pid %d", s.Supervisor.PID)
	case !s.Command.valid():
		return fmt.Errorf("command cannot have pid %d", s.Command.PID)
	case s.Code < 0 || s.Code > 255:
		return fmt.Errorf("code %d is out of range", s.Code)
	case s.Signal != "" && !signalName.MatchString(s.Signal):
		return errors.New("signal is none")
	case s.Stage != clean(s.Stage, maxStage):
		return errors.New("stage is no short line")
	case s.Message != clean(s.Message, maxMessage):
		return errors.New("message is no short line")
	case !validTime(s.StartedAt):
		return errors.New("started_at is out of range")
	case !validTime(s.EndedAt):
		return errors.New("ended_at is out of range")
	}
	return nil
}

func (p Process) valid() bool { return p.PID >= 0 && p.PID <= maxPID }

// validTime allows no time, or one that Unix and RFC 3339 can tell in UTC.
func validTime(t time.Time) bool {
	return t.IsZero() || t.Unix() >= 0 && t.UTC().Year() <= 9999
}

// clean makes text one printable line of at most limit bytes. What was cleaned
// stays as it is.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
