package session

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"banger/internal/vm"
)

// ID names a session for as long as it exists, on the host and in the guest:
// 32 lower-case hexadecimal digits.
type ID string

// NewID returns a random ID. It is taken by nobody: it has 128 bits.
func NewID() ID {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return ID(hex.EncodeToString(b[:]))
}

// Valid reports whether id has the form of an ID.
func (id ID) Valid() bool {
	return len(id) == 32 && strings.Trim(string(id), "0123456789abcdef") == ""
}

// What a session's command reads from.
const (
	Closed = "closed" // nothing
	Pipe   = "pipe"   // what is sent to it
	PTY    = "pty"    // a terminal
)

// Session is the durable record of a session: what was asked for, and where it
// was last found to stand.
type Session struct {
	ID       ID
	Machine  vm.ID
	VM       string // the machine's name, as the store has it now
	Name     string // a DNS label, unique in the machine
	Command  string // never empty
	Args     []string
	Dir      string // in the guest; empty: the user's home
	Env      map[string]string
	User     string // in the guest
	Stdin    string // Closed, Pipe or PTY
	Tags     []string
	Required []string // commands that must be there too
	// LogLimit is how much of each stream is kept, in bytes.
	LogLimit  int64
	CreatedAt time.Time
	Standing
}

// Standing is where a session stood when it was last looked at. Two can be
// compared by ==.
type Standing struct {
	Status        Status
	GuestPID      int32 // while it runs; else 0
	ExitCode      int32 // of one that exited; 128+n: by signal n
	ExitSignal    string
	FailedStage   string // of one that failed: StageCheck, StageStart or StageRun
	FailedMessage string
	LastError     string    // why it could not be looked at; empty once it could
	StartedAt     time.Time // zero: not known to have started
	EndedAt       time.Time // zero: not known to have ended
}

// Stages at which a session may fail.
const (
	StageCheck = "check" // something it needs is not there
	StageStart = "start" // it could not be started
	StageRun   = "run"   // what it ran in has gone
)

// StdinOpen reports whether the command's input can be written, as far as what
// was asked for tells: what is sent to a terminal is typed.
func (s Session) StdinOpen() bool { return s.Stdin == Pipe || s.Stdin == PTY }

// LogPath is where a stream of a session is kept in its guest.
func LogPath(id ID, stream string) string {
	return "/root/.local/state/banger/sessions/" + string(id) + "/" + stream + ".log"
}
