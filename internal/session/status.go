package session

import (
	"slices"
	"strings"

	"banger/internal/errkind"
)

// Status is what was last recorded about a session. A word in -ing means that
// it has not ended, as far as is known.
type Status string

const (
	Starting Status = "starting"
	Running  Status = "running"
	Stopping Status = "stopping"
	Exited   Status = "exited"
	Failed   Status = "failed"
)

// next lists every legal transition. A stop that was given up leaves a session
// running. One that has ended never becomes another.
var next = map[Status][]Status{
	Starting: {Running, Stopping, Exited, Failed},
	Running:  {Stopping, Exited, Failed},
	Stopping: {Running, Exited, Failed},
	Exited:   {},
	Failed:   {},
}

// Check returns nil if a session in status s may move to t, else an error of
// kind [errkind.Conflict].
func (s Status) Check(t Status) error {
	if slices.Contains(next[s], t) {
		return nil
	}
	return errkind.New(errkind.Conflict, "session is %s, cannot become %s", s, t)
}

// Statuses returns every status, in the order of a session's life.
func Statuses() []Status { return []Status{Starting, Running, Stopping, Exited, Failed} }

// Valid reports whether s is one of the statuses above.
func (s Status) Valid() bool { return next[s] != nil }

// Final reports whether a session in status s has ended.
func (s Status) Final() bool { return s == Exited || s == Failed }

// Runs reports whether a session in status s has a command that runs.
func (s Status) Runs() bool { return s == Running || s == Stopping }

func statusNames() string {
	var names []string
	for _, s := range Statuses() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}
