// Package errkind gives an error a kind, on which exit codes and wire status
// depend, and hints, each a line that can be pasted and works.
//
// Most errors need neither: an error without a kind is [Internal]. Give one a
// kind where it is born, if some caller decides on it.
package errkind

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. Its text is what "kind" holds
// in the JSON form of an error, and is stable.
type Kind string

const (
	Internal Kind = "internal"  // a fault of ours or of the host; exit code 1
	Usage    Kind = "usage"     // the request makes no sense; exit code 2
	NotFound Kind = "not_found" // no such machine, image, …; exit code 3
	Conflict Kind = "conflict"  // exists already, wrong state, in use; exit code 4
	Host     Kind = "host"      // the host lacks something; exit code 5
	Timeout  Kind = "timeout"   // a time limit passed; exit code 124
	Canceled Kind = "canceled"  // whoever asked went away; exit code 1
)

// Error is an error with a kind and hints. Use [New], [Wrap] and [WithHint]
// to make one and [Of] and [Hints] to read it.
type Error struct {
	Kind  Kind     // empty: the kind of Err
	Err   error    // non-nil
	Hints []string // each a command line that can be pasted
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that was given a kind or a hint.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of kind k with a message as by [fmt.Errorf],
// %w included.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k, whatever it had. Wrap of nil is nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// WithHint adds command lines that mend what err tells of. It keeps err's
// kind. WithHint of nil is nil.
func WithHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Hints: hints}
}

// Of returns the kind of the outermost error in err's chain that has one.
// Without one it is [Timeout] or [Canceled] for the errors of a context, else
// [Internal]. Of nil it is empty.
func Of(err error) Kind {
	if err == nil {
		return ""
	}
	for e := err; e != nil; {
		var ke *Error
		if !errors.As(e, &ke) {
			break
		}
		if ke.Kind != "" {
			return ke.Kind
		}
		e = ke.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// Hints returns every hint in err's chain, outermost first.
func Hints(err error) []string {
	var hints []string
	for e := err; e != nil; {
		var ke *Error
		if !errors.As(e, &ke) {
			break
		}
		hints = append(hints, ke.Hints...)
		e = ke.Err
	}
	return hints
}
