package session_test

import (
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/session"
)

func TestStatus(t *testing.T) {
	legal := map[session.Status]string{
		session.Starting: "running stopping exited failed",
		session.Running:  "stopping exited failed",
		session.Stopping: "running exited failed",
		session.Exited:   "", session.Failed: "",
	}
	for _, from := range session.Statuses() {
		if !from.Valid() || from.Final() != (legal[from] == "") {
			t.Errorf("%s: valid %t, final %t", from, from.Valid(), from.Final())
		}
		for _, to := range session.Statuses() {
			want := strings.Contains(legal[from], string(to))
			if err := from.Check(to); (err == nil) != want || err != nil && errkind.Of(err) != errkind.Conflict {
				t.Errorf("%s to %s: %v", from, to, err)
			}
		}
	}
	if session.Status("").Valid() || session.Status("happy").Valid() || session.Status("happy").Final() {
		t.Error("Valid or Final takes a status that is none")
	}
}

func TestAfter(t *testing.T) {
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s int) time.Time { return made.Add(time.Duration(s) * time.Second) }
	now := at(100)
	of := func(st session.Standing) session.Session { return session.Session{CreatedAt: made, Standing: st} }
	running := session.Standing{Status: session.Running, GuestPID: 7, StartedAt: at(1)}
	tests := []struct {
		name string
		was  session.Standing
		seen session.Seen
		want session.Standing
	}{
		{"it runs", session.Standing{Status: session.Starting, LastError: "x"},
			session.Seen{Status: session.Running, GuestPID: 7, StartedAt: at(1)}, running},
		{"nothing new", running, session.Seen{Status: session.Running, GuestPID: 7, StartedAt: at(50)}, running},
		{"not found out", running, session.Seen{LastError: "why"},
			session.Standing{Status: session.Running, GuestPID: 7, StartedAt: at(1), LastError: "why"}},
		{"exited", running, session.Seen{Status: session.Exited, ExitCode: 3, EndedAt: at(9)},
			session.Standing{Status: session.Exited, ExitCode: 3, StartedAt: at(1), EndedAt: at(9)}},
		{"exited before it was seen to run", session.Standing{Status: session.Starting}, session.Seen{Status: session.Exited, ExitCode: 137, ExitSignal: "KILL"},
			session.Standing{Status: session.Exited, ExitCode: 137, ExitSignal: "KILL", StartedAt: now, EndedAt: now}},
		{"never started", session.Standing{Status: session.Starting}, session.Seen{Status: session.Failed, Stage: "check", Message: "m"},
			session.Standing{Status: session.Failed, FailedStage: "check", FailedMessage: "m", EndedAt: now}},
		{"failed while it ran", running, session.Seen{Status: session.Failed, Stage: "run", Message: "m", EndedAt: at(2)},
			session.Standing{Status: session.Failed, FailedStage: "run", FailedMessage: "m", StartedAt: at(1), EndedAt: at(2)}},
		{"times before it was made", session.Standing{Status: session.Starting}, session.Seen{Status: session.Exited, StartedAt: at(-9), EndedAt: at(-5)},
			session.Standing{Status: session.Exited, StartedAt: made, EndedAt: made}},
		{"times to come", session.Standing{Status: session.Starting}, session.Seen{Status: session.Exited, StartedAt: at(900), EndedAt: at(901)},
			session.Standing{Status: session.Exited, StartedAt: now, EndedAt: now}},
		{"never back to starting", running, session.Seen{Status: session.Starting}, running},
		{"a stop given up", session.Standing{Status: session.Stopping, GuestPID: 7, StartedAt: at(1)}, session.Seen{Status: session.Running, GuestPID: 7}, running},
		{"an end stands", session.Standing{Status: session.Exited, ExitCode: 1}, session.Seen{Status: session.Failed, Stage: "run", Message: "m"},
			session.Standing{Status: session.Exited, ExitCode: 1}},
		{"an end bears no error", session.Standing{Status: session.Failed}, session.Seen{LastError: "why"}, session.Standing{Status: session.Failed}},
	}
	for _, tt := range tests {
		if got := of(tt.was).After(tt.seen, now).Standing; got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	// The host's clock was set back.
	if got := of(running).After(session.Seen{Status: session.Exited}, at(-50)); got.EndedAt != at(1) {
		t.Errorf("ended at %s", got.EndedAt)
	}
}
