package session

import "time"

// Seen is what was found out about a session: where it stands, or only why that
// could not be found out.
type Seen struct {
	Status Status // empty: not found out, Standing stays but for LastError
	// The rest is as in [Standing], as far as it is known.
	GuestPID   int32
	ExitCode   int32
	ExitSignal string
	Stage      string
	Message    string
	StartedAt  time.Time
	EndedAt    time.Time
	LastError  string
}

// A Change is news of one session.
type Change struct {
	ID   ID
	Seen Seen
}

// failed is what is found of a session that did not end by itself.
func failed(stage, message string) Seen {
	return Seen{Status: Failed, Stage: stage, Message: message}
}

// After returns the session as it is recorded once that was seen, at a time. A
// session that has ended stays as it is, and a step that is not legal is not
// taken. Times are set once and lie between the record's creation and now.
func (s Session) After(n Seen, now time.Time) Session {
	if s.Status.Final() {
		return s
	}
	s.LastError = n.LastError
	if n.Status != s.Status && s.Status.Check(n.Status) != nil {
		return s
	}
	s.Status, s.GuestPID = n.Status, 0
	switch {
	case n.Status.Runs():
		s.GuestPID = n.GuestPID
	case n.Status == Exited:
		s.ExitCode, s.ExitSignal = n.ExitCode, n.ExitSignal
	case n.Status == Failed:
		s.FailedStage, s.FailedMessage = n.Stage, n.Message
	}
	began := n.Status.Runs() || n.Status == Exited || !n.StartedAt.IsZero()
	if s.StartedAt.IsZero() && began {
		s.StartedAt = within(n.StartedAt, s.CreatedAt, now)
	}
	if n.Status.Final() {
		from := s.CreatedAt
		if !s.StartedAt.IsZero() {
			from = s.StartedAt
		}
		s.EndedAt = within(n.EndedAt, from, now)
	}
	return s
}

// within returns t if it lies between two times, else the one that it is
// beyond; zero is later than both.
func within(t, from, to time.Time) time.Time {
	if to.Before(from) { // the host's clock was set back
		to = from
	}
	switch {
	case t.IsZero() || t.After(to):
		return to
	case t.Before(from):
		return from
	}
	return t
}
