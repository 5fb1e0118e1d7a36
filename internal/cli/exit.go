package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"banger/internal/errkind"
)

// Exit codes, beside a guest command's own.
const (
	codeFailed   = 1
	codeUsage    = 2
	codeNotFound = 3
	codeConflict = 4
	codeHost     = 5
	codeTimeout  = 124
	codeBanger   = 125 // run and exec: banger failed, not the command
	codeSignal   = 128 // + the signal's number
)

// codes gives each kind of error its code.
var codes = map[errkind.Kind]int{
	errkind.Internal: codeFailed,
	errkind.Canceled: codeFailed,
	errkind.Usage:    codeUsage,
	errkind.NotFound: codeNotFound,
	errkind.Conflict: codeConflict,
	errkind.Host:     codeHost,
	errkind.Timeout:  codeTimeout,
}

// exitError ends banger with a code; what there was to say has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// signaled is the cause of a context that a signal ended.
type signaled struct{ sig syscall.Signal }

func (s signaled) Error() string { return "ended by signal " + s.sig.String() }

// guestFailure is banger's own failure to run a guest's command, which must
// not look like the command's.
type guestFailure struct{ err error }

func (g *guestFailure) Error() string { return g.err.Error() }
func (g *guestFailure) Unwrap() error { return g.err }

// failures are those of several machines.
type failures []error

func (f failures) Error() string   { return errors.Join(f...).Error() }
func (f failures) Unwrap() []error { return f }

// exit tells of the error with which a command ended and returns the code to
// end with.
func (a *app) exit(err error) int {
	if fs, ok := err.(failures); ok {
		code := a.exit(fs[0])
		for _, err := range fs[1:] {
			if a.exit(err) != code {
				code = codeFailed
			}
		}
		return code
	}
	code, silent := exitCode(err)
	if !silent {
		a.tell(err)
	}
	return code
}

// exitCode returns the code of an error, and whether it goes without saying.
func exitCode(err error) (code int, silent bool) {
	var own exitError
	var sig signaled
	var guest *guestFailure
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &own):
		return int(own), true
	case errors.As(err, &sig):
		return codeSignal + int(sig.sig), true
	case isOutput(err) && errors.Is(err, syscall.EPIPE):
		// Whoever read our output has had enough, as with "| head".
		return codeSignal + int(syscall.SIGPIPE), true
	}
	code = codes[errkind.Of(err)]
	if errors.As(err, &guest) && code != codeUsage && code != codeTimeout {
		code = codeBanger
	}
	return code, false
}

// sigName returns a signal's name without SIG.
func sigName(s os.Signal) string {
	return map[os.Signal]string{
		syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT",
	}[s]
}
