package vm

import (
	"slices"

	"banger/internal/errkind"
)

// State is what the daemon last recorded about a machine.
// A word in -ing means work was begun and its end was not yet recorded.
type State string

const (
	Created  State = "created"
	Starting State = "starting"
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Deleting State = "deleting"
	Faulty   State = "faulty" // taking down failed; something may be left on the host
)

// next lists every legal transition. Taking down may be begun again from any
// state in which something may be left on the host. Any state but Starting
// may be deleted: deleting takes down first.
var next = map[State][]State{
	Created:  {Starting, Deleting},
	Starting: {Running, Stopping, Stopped, Faulty},
	Running:  {Paused, Stopping, Deleting},
	Paused:   {Running, Stopping, Deleting},
	Stopping: {Stopping, Stopped, Faulty, Deleting},
	Stopped:  {Starting, Deleting},
	Deleting: {Deleting, Faulty},
	Faulty:   {Stopping, Deleting},
}

// Check returns nil if a machine in state s may move to t, else an error of
// kind [errkind.Conflict].
func (s State) Check(t State) error {
	if slices.Contains(next[s], t) {
		return nil
	}
	return errkind.New(errkind.Conflict, "machine is %s, cannot become %s", s, t)
}

// States returns every state, in the order of a machine's life.
func States() []State {
	return []State{Created, Starting, Running, Paused, Stopping, Stopped, Deleting, Faulty}
}

// Valid reports whether s is one of the states above.
func (s State) Valid() bool { return next[s] != nil }

// Unfinished reports whether s was left behind by work that never ended,
// which at start-up means the daemon or the host died in the middle of it.
func (s State) Unfinished() bool {
	return s == Starting || s == Stopping || s == Deleting
}

// Up reports whether a machine recorded as s should have a VMM process.
func (s State) Up() bool { return s == Running || s == Paused }
