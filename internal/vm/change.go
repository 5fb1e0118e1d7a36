package vm

// A Change is one step in a machine's life, as the store records it: the
// state's transition is checked and written in one transaction.
type Change struct {
	To     State
	Reason string // why it is in To; may be empty
	// LastError, if not nil, replaces what the record says of the last
	// operation that failed; an empty string clears it.
	LastError *string
	Started   bool   // To is Running, from now on: sets StartedAt
	ImageID   string // if not empty, the version of the image it stands on
	Held      bool   // To is Paused, until the machine is resumed
	// Cold: it stands on no template from now on.
	Cold bool
	// Found: the change tells what recovery found, whatever the table of
	// transitions says.
	Found bool
}
