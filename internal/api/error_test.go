package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"connectrpc.com/connect"

	"banger/internal/errkind"
)

func TestErrorsTravel(t *testing.T) {
	tests := []struct {
		err   error
		kind  errkind.Kind
		hints []string
	}{
		{errors.New("create tap: operation not permitted"), errkind.Internal, nil},
		{errkind.New(errkind.Usage, "bad"), errkind.Usage, nil},
		{fmt.Errorf("start: %w", errkind.WithHint(errkind.New(errkind.Host, "no qemu"), "apt-get install -y qemu")), errkind.Host, []string{"apt-get install -y qemu"}},
		{errkind.New(errkind.NotFound, "no machine"), errkind.NotFound, nil},
		{errkind.New(errkind.Conflict, "taken"), errkind.Conflict, nil},
		{context.DeadlineExceeded, errkind.Timeout, nil},
		{context.Canceled, errkind.Canceled, nil},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("unmarshal message")), errkind.Usage, nil},
		{connect.NewError(connect.CodeDeadlineExceeded, errors.New("late")), errkind.Timeout, nil},
		{connect.NewError(connect.CodeUnknown, errors.New("what")), errkind.Internal, nil},
	}
	for _, tt := range tests {
		got := FromConnect(t.Context(), ToConnect(tt.err))
		if got == nil || got.Error() != tt.err.Error() || errkind.Of(got) != tt.kind || !slices.Equal(errkind.Hints(got), tt.hints) {
			t.Errorf("%v came back as %v, kind %s, hints %q", tt.err, got, errkind.Of(got), errkind.Hints(got))
		}
		if errors.Is(got, ErrLost) {
			t.Errorf("%v came back as a lost connection", tt.err)
		}
	}
	if ToConnect(nil) != nil || FromConnect(t.Context(), nil) != nil {
		t.Error("no error became one")
	}
}

func TestFromConnectWithoutDetail(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cause := errkind.New(errkind.Timeout, "took too long")
	cancel(cause)
	reset := connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))
	canceled := connect.NewError(connect.CodeCanceled, errors.New("stream was reset"))
	tests := []struct {
		ctx  context.Context
		err  error
		want error
	}{
		{t.Context(), reset, ErrLost},
		{t.Context(), canceled, ErrLost}, // by the daemon, not by us
		{t.Context(), io.ErrUnexpectedEOF, ErrLost},
		{ended, reset, cause},
		{ended, canceled, cause},
		{ended, ToConnect(context.Canceled), cause},
		{t.Context(), io.EOF, io.EOF},
	}
	for _, tt := range tests {
		got := FromConnect(tt.ctx, tt.err)
		if !errors.Is(got, tt.want) {
			t.Errorf("FromConnect(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
	goAway := connect.NewError(connect.CodeUnavailable, errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=3, ErrCode=NO_ERROR"))
	if got := FromConnect(t.Context(), goAway); got == nil || got.Error() != "the daemon went away (it was stopped)" {
		t.Errorf("a daemon that was stopped: %v", got)
	}
	told := errkind.New(errkind.Conflict, "taken")
	if got := FromConnect(ended, ToConnect(told)); errkind.Of(got) != errkind.Conflict {
		t.Errorf("what the daemon said before the caller's end became %v", got)
	}
}

func FuzzDetail(f *testing.F) {
	f.Add("no machine \"web\"", "banger vm list")
	f.Add("\xff\x00", strings.Repeat("ü", maxErrorMessage))
	f.Fuzz(func(t *testing.T, msg, hint string) {
		d := Detail(errkind.WithHint(errkind.New(errkind.Host, "%s", msg), hint))
		for _, s := range append(d.Hints, d.Message) {
			if !utf8.ValidString(s) || len(s) > maxErrorMessage+4 {
				t.Errorf("%d bytes, UTF-8: %t", len(s), utf8.ValidString(s))
			}
		}
		if got := FromConnect(t.Context(), ToConnect(errors.New(msg))); got == nil || errkind.Of(got) != errkind.Internal {
			t.Errorf("%q came back as %v", msg, got)
		}
	})
}
