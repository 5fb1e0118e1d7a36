package session

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"banger/internal/guest/wire"
)

// Limits of what a guest tells.
const (
	maxPID     = 1 << 22 // PID_MAX_LIMIT (Linux, include/linux/threads.h)
	maxCode    = 255     // what wait(2) keeps of an exit status
	maxSignal  = 16      // bytes of a signal's name
	maxMessage = 1 << 10 // bytes of any other text
)

// told turns what a guest says of a session into what was seen of it. It takes
// nothing on trust: the guest may be hostile.
func told(st *wire.SessionStatus) Seen {
	n := Seen{
		Status:    Status(st.GetState()),
		StartedAt: toldTime(st.GetStartedNs()),
		EndedAt:   toldTime(st.GetEndedNs()),
	}
	switch n.Status {
	case Running, Stopping:
		if p := st.GetPid(); p > 0 && p <= maxPID {
			n.GuestPID = p
		}
	case Exited:
		n.ExitCode, n.ExitSignal = st.GetCode(), toldSignal(st.GetSignal())
		if n.ExitCode < 0 || n.ExitCode > maxCode {
			return Seen{LastError: fmt.Sprintf("the guest tells of an exit code %d, which there is none of", n.ExitCode)}
		}
	case Failed:
		n.Stage, n.Message = toldStage(st.GetStage()), printable(st.GetMessage())
		if n.Message == "" {
			n.Message = "the guest does not say why"
		}
	default:
		return Seen{LastError: fmt.Sprintf("the guest tells of a status %.40q, which there is none of", st.GetState())}
	}
	return n
}

// toldTime is zero for what is no time that a record holds.
func toldTime(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// toldSignal is empty for what cannot be the name of a signal.
func toldSignal(s string) string {
	if len(s) > maxSignal || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-") != "" {
		return ""
	}
	return s
}

func toldStage(s string) string {
	switch s {
	case StageCheck, StageStart:
		return s
	}
	return StageRun
}

// printable is text of a guest as people may see it: one line, bounded.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s[:min(len(s), 8*maxMessage)])
	s = strings.TrimSpace(s)
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + " …"
}

// statusOf is what a caller is told of a session in the guest's own words: of
// what was seen, not of what the guest sent.
func statusOf(id ID, n Seen) *wire.SessionStatus {
	return &wire.SessionStatus{
		Id: string(id), State: string(n.Status), Pid: n.GuestPID, Code: n.ExitCode, Signal: n.ExitSignal,
		Stage: n.Stage, Message: n.Message,
		StartedNs: nanoseconds(n.StartedAt), EndedNs: nanoseconds(n.EndedAt),
	}
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// toldOutput refuses output that nobody asked for.
func toldOutput(p *wire.SessionLogsResponse, streams []string) error {
	if !slices.Contains(streams, p.GetStream()) || p.GetOffset() < 0 {
		return fmt.Errorf("the guest sends of a stream %.40q at %d, which nobody asked for", p.GetStream(), p.GetOffset())
	}
	return nil
}
