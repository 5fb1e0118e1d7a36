package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"

	"banger/internal/errkind"
)

// ErrLost says that the daemon went away, or was never there, before it had
// answered: whether it has done what was asked is not known.
var ErrLost = errors.New("the daemon went away")

// Limits of an error on the wire: a guest's last words may be part of it.
const (
	maxErrorMessage = 16 << 10 // bytes
	maxErrorHints   = 16
)

// codes gives each kind a status, for those who read that alone. The kind
// itself travels in the detail.
var codes = map[errkind.Kind]connect.Code{
	errkind.Internal: connect.CodeInternal,
	errkind.Usage:    connect.CodeInvalidArgument,
	errkind.NotFound: connect.CodeNotFound,
	errkind.Conflict: connect.CodeAborted,
	errkind.Host:     connect.CodeFailedPrecondition,
	errkind.Timeout:  connect.CodeDeadlineExceeded,
	errkind.Canceled: connect.CodeCanceled,
}

// ToConnect gives an error the form in which it travels: the status of its
// kind and an [ErrorDetail] with kind, message and hints. ToConnect of nil is
// nil.
func ToConnect(err error) error {
	if err == nil {
		return nil
	}
	d := Detail(err)
	ce := connect.NewError(codes[errkind.Kind(d.Kind)], errors.New(d.Message))
	detail, derr := connect.NewErrorDetail(d)
	if derr != nil {
		panic("internal error: encode an error: " + derr.Error())
	}
	ce.AddDetail(detail)
	return ce
}

// Detail returns kind, message and hints of an error that is not nil, as they
// travel and as --json shows them.
func Detail(err error) *ErrorDetail {
	d := &ErrorDetail{Kind: string(kindOf(err)), Message: text(err.Error())}
	for _, h := range errkind.Hints(err) {
		if len(d.Hints) < maxErrorHints {
			d.Hints = append(d.Hints, text(h))
		}
	}
	return d
}

// kindOf is the kind of an error, also of one of the RPC library's own: a
// message that could not be read, a deadline that travelled with the call.
func kindOf(err error) errkind.Kind {
	k := errkind.Of(err)
	var ce *connect.Error
	if k != errkind.Internal || !errors.As(err, &ce) {
		return k
	}
	switch ce.Code() {
	case connect.CodeInvalidArgument:
		return errkind.Usage
	case connect.CodeDeadlineExceeded:
		return errkind.Timeout
	case connect.CodeCanceled:
		return errkind.Canceled
	}
	return errkind.Internal
}

// text makes s fit for a message: UTF-8, of bounded length.
func text(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxErrorMessage {
		return s
	}
	cut := maxErrorMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + " …"
}

// FromConnect gives an error that came over the wire its kind, message and
// hints again; ctx is that of the call. If ctx has ended and the daemon said
// nothing but that, the error is ctx's cause. An error of the connection
// itself wraps [ErrLost]. The end of a stream (an error that wraps [io.EOF])
// and nil are returned as they are.
func FromConnect(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var ce *connect.Error
	if errors.As(err, &ce) {
		if d := detailOf(ce); d != nil && (ctx.Err() == nil || d.Kind != string(errkind.Canceled)) {
			return fromDetail(d)
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !connect.IsWireError(err):
		return lost(err)
	case ce.Code() == connect.CodeUnimplemented:
		return mismatch("the daemon does not know this call")
	}
	return errkind.New(kindOf(ce), "%s", ce.Message())
}

// detailOf returns what the daemon said, nil if it said nothing.
func detailOf(ce *connect.Error) *ErrorDetail {
	for _, d := range ce.Details() {
		v, err := d.Value()
		if det, ok := v.(*ErrorDetail); ok && err == nil {
			return det
		}
	}
	return nil
}

func fromDetail(d *ErrorDetail) error {
	k := errkind.Kind(d.Kind)
	if _, known := codes[k]; !known {
		k = errkind.Internal // of a newer daemon
	}
	return errkind.WithHint(errkind.New(k, "%s", d.Message), d.Hints...)
}

// lost names the cause without the words of the RPC library, which tell of
// its own insides.
func lost(err error) error {
	var ce *connect.Error
	if errors.As(err, &ce) {
		err = ce.Unwrap()
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.ErrUnexpectedEOF // in the middle of a message
	case strings.Contains(err.Error(), "GOAWAY"): // of an error type that net/http keeps to itself
		err = errors.New("it was stopped")
	}
	return errkind.Wrap(errkind.Internal, &lostError{err})
}

type lostError struct{ cause error }

func (e *lostError) Error() string        { return ErrLost.Error() + " (" + e.cause.Error() + ")" }
func (e *lostError) Unwrap() error        { return e.cause }
func (e *lostError) Is(target error) bool { return target == ErrLost }
