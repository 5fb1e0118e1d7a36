package errkind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestOf(t *testing.T) {
	cause := errors.New("cause")
	tests := []struct {
		err  error
		want Kind
	}{
		{nil, ""},
		{cause, Internal},
		{New(NotFound, "no vm: %w", cause), NotFound},
		{fmt.Errorf("start: %w", New(Conflict, "taken")), Conflict},
		{WithHint(New(Usage, "bad"), "banger help"), Usage},
		{Wrap(Host, New(Usage, "bad")), Host},
		{errors.Join(cause, New(Timeout, "late")), Timeout},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), Timeout},
		{WithHint(context.Canceled, "again"), Canceled},
		{Wrap(NotFound, nil), ""},
	}
	for _, tt := range tests {
		if got := Of(tt.err); got != tt.want {
			t.Errorf("Of(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestHints(t *testing.T) {
	err := WithHint(fmt.Errorf("start: %w", WithHint(New(Host, "no qemu"), "inner")), "outer 1", "outer 2")
	if got, want := Hints(err), []string{"outer 1", "outer 2", "inner"}; !slices.Equal(got, want) {
		t.Errorf("Hints = %q, want %q", got, want)
	}
	if got := Hints(errors.New("plain")); got != nil {
		t.Errorf("Hints of a plain error = %q", got)
	}
}
