package api

// Doctor is what doctor found: the document of "doctor --json", which the
// daemon's program prints without serving. It is no message of the protocol:
// it must be had when no daemon can run.
type Doctor struct {
	OK      bool    `json:"ok"`      // machines can run: no check failed
	Summary string  `json:"summary"` // a sentence: whether machines can run, and how
	Checks  []Check `json:"checks"`  // in the order to be read; never nil
}

// Check is one thing that a machine needs.
type Check struct {
	Name   string      `json:"name"` // one word; stable
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail"` // a line: what was found
	Hints  []string    `json:"hints"`  // command lines that mend it, in this order; never nil
}

// CheckStatus is how a check ended.
type CheckStatus string

// The values of a CheckStatus; they are stable.
const (
	CheckOK   CheckStatus = "ok"
	CheckWarn CheckStatus = "warn" // machines run, but not as they should
	CheckFail CheckStatus = "fail" // machines cannot run
)
