package session_test

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"banger/internal/guest/wire"
	"banger/internal/session"
)

func TestTold(t *testing.T) {
	tests := []struct {
		name string
		says *wire.SessionStatus
		want session.Seen
	}{
		{"it runs", &wire.SessionStatus{State: "running", Pid: 5, StartedNs: 7}, session.Seen{Status: session.Running, GuestPID: 5, StartedAt: time.Unix(0, 7).UTC()}},
		{"no such pid", &wire.SessionStatus{State: "stopping", Pid: -5}, session.Seen{Status: session.Stopping}},
		{"too high a pid", &wire.SessionStatus{State: "running", Pid: math.MaxInt32}, session.Seen{Status: session.Running}},
		{"by a signal", &wire.SessionStatus{State: "exited", Code: 143, Signal: "TERM"}, session.Seen{Status: session.Exited, ExitCode: 143, ExitSignal: "TERM"}},
		{"a signal that is none", &wire.SessionStatus{State: "exited", Code: 143, Signal: "\x1b[2J"}, session.Seen{Status: session.Exited, ExitCode: 143}},
		{"times that are none", &wire.SessionStatus{State: "exited", StartedNs: -1, EndedNs: math.MinInt64}, session.Seen{Status: session.Exited}},
		{"failed", &wire.SessionStatus{State: "failed", Stage: "check", Message: " no\n\x1b[1mcommand\xff "}, session.Seen{Status: session.Failed, Stage: "check", Message: "no [1mcommand"}},
		{"failed somewhere", &wire.SessionStatus{State: "failed", Stage: "../../x"}, session.Seen{Status: session.Failed, Stage: "run", Message: "the guest does not say why"}},
	}
	for _, tt := range tests {
		if got := session.Told(tt.says); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	for _, st := range []*wire.SessionStatus{nil, {}, {State: "starting"}, {State: "happy\n"}, {State: "exited", Code: 256}, {State: "exited", Code: -1}} {
		if got := session.Told(st); got.Status != "" || got.LastError == "" {
			t.Errorf("of %v: %+v", st, got)
		}
	}
}

func FuzzTold(f *testing.F) {
	f.Add("running", int32(1), int32(0), "", "", "", int64(1), int64(0))
	f.Add("exited", int32(0), int32(143), "TERM", "", "", int64(1), int64(2))
	f.Add("failed", int32(0), int32(0), "", "check", "no \x1bsuch\u202e"+strings.Repeat("ü", 2000), int64(math.MinInt64), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, state string, pid, code int32, signal, stage, message string, started, ended int64) {
		n := session.Told(&wire.SessionStatus{State: state, Pid: pid, Code: code, Signal: signal, Stage: stage, Message: message, StartedNs: started, EndedNs: ended})
		if n.Status == "" && n.LastError == "" || n.Status != "" && !n.Status.Valid() {
			t.Errorf("%+v", n)
		}
		for _, text := range []string{n.ExitSignal, n.Stage, n.Message, n.LastError} {
			if len(text) > 2000 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q", text)
			}
		}
		made, now := time.Unix(1000, 0).UTC(), time.Unix(2000, 0).UTC()
		s := session.Session{CreatedAt: made, Standing: session.Standing{Status: session.Starting}}.After(n, now)
		for _, at := range []time.Time{s.StartedAt, s.EndedAt} {
			if !at.IsZero() && (at.Before(made) || at.After(now)) {
				t.Errorf("%s is not between %s and %s", at, made, now)
			}
		}
		if s.Status.Final() && s.EndedAt.Before(s.StartedAt) {
			t.Errorf("it ended at %s and began at %s", s.EndedAt, s.StartedAt)
		}
		if again := s.After(n, now.Add(time.Hour)); again.Standing != s.Standing {
			t.Errorf("told the same again it changes from %+v to %+v", s.Standing, again.Standing)
		}
	})
}
