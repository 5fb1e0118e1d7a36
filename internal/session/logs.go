package session

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// Streams of a session.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	Both   = "both" // of a request: by line
)

// DefaultTail is how many lines of a log are sent when nobody says.
const DefaultTail = 200

// LogRequest is what of a session's logs is wanted.
type LogRequest struct {
	Stream string // Stdout, Stderr or Both; empty: Stdout
	Tail   int32  // lines; zero or less: DefaultTail
	All    bool   // everything that is kept, in the place of Tail
	Follow bool   // goes on until the session has ended
	Since  time.Time
	// Where to go on in each stream: so many bytes into it, plus 1, in the
	// place of Tail, All and Since; 0: not given.
	FromStdout, FromStderr int64
}

// wire is the request as an agent takes it.
func (r LogRequest) wire(id ID) (*wire.SessionLogsRequest, error) {
	w := &wire.SessionLogsRequest{Id: string(id), Tail: r.Tail, Follow: r.Follow, SinceNs: sinceNs(r.Since)}
	if r.Tail <= 0 {
		w.Tail = DefaultTail
	}
	if r.All {
		w.Tail = 0
	}
	out, err := max(0, r.FromStdout), max(0, r.FromStderr)
	switch r.Stream {
	case Stdout, "":
		w.Streams, w.From = []string{Stdout}, out
	case Stderr:
		w.Streams, w.From = []string{Stderr}, err
	case Both:
		w.Streams, w.From, w.FromSecond = []string{Stdout, Stderr}, out, err
	default:
		return nil, errkind.New(errkind.Usage, "%.70q is no stream of a session; there is %s, %s and %s", r.Stream, Stdout, Stderr, Both)
	}
	return w, nil
}

// sinceNs is a time as an agent takes it, 0 for any: what the number cannot
// hold is before or after all that there is.
func sinceNs(t time.Time) int64 {
	switch {
	case t.Unix() <= 0:
		return 0
	case t.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// Logs gives emit what a session wrote: of a machine that is up from its agent,
// of one that is stopped from its work disk. The first error of emit ends it and
// is returned.
func (m *Manager) Logs(ctx context.Context, machine, ref string, r LogRequest, emit func(Session, *wire.SessionLogsResponse) error) error {
	w, err := r.wire("")
	if err != nil {
		return err
	}
	v, s, err := m.find(ctx, machine, ref)
	if err != nil {
		return err
	}
	w.Id = string(s.ID)
	one := func(p *wire.SessionLogsResponse) error { return emit(s, p) }
	switch {
	case v.State.Up():
		return m.logsOfGuest(ctx, v, s, w, one)
	case settled(v.State):
		return m.logsOfDisk(ctx, v, s, w, one)
	}
	return errkind.WithHint(
		errkind.New(errkind.Conflict, "vm %q is %s: the logs of its sessions can be read when it runs or is stopped", v.Name, v.State),
		"banger vm show "+v.Name)
}

func (m *Manager) logsOfGuest(ctx context.Context, v vm.VM, s Session, r *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error {
	t, err := m.reach(ctx, v)
	if err != nil {
		return err
	}
	defer t.done()
	_, stop := m.d.Machines.Notices(v.ID)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream, if emit fails
	stream, err := t.agent.SessionLogs(ctx, connect.NewRequest(r))
	if err != nil {
		return m.logsBroken(ctx, t, s, err)
	}
	defer stream.Close()
	for stream.Receive() {
		p := stream.Msg()
		if err := toldOutput(p, r.Streams); err != nil {
			return err
		}
		if err := emit(p); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return m.logsBroken(ctx, t, s, err)
	}
	return nil
}

func (m *Manager) logsBroken(ctx context.Context, t target, s Session, err error) error {
	if code, ok := said(err); ok && code == connect.CodeNotFound {
		return noLogs(s)
	}
	return m.broken(ctx, t, s, err, "logs of session "+s.Name+" were read")
}

func (m *Manager) logsOfDisk(ctx context.Context, v vm.VM, s Session, r *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error {
	err := m.d.Disks.Logs(ctx, v.ID, s.ID, r, func(p *wire.SessionLogsResponse) error {
		if err := toldOutput(p, r.Streams); err != nil {
			return err
		}
		return emit(p)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return noLogs(s)
	}
	return err
}

// noLogs tells that nothing is there that a session wrote: it never came to
// run, or its guest removed it.
func noLogs(s Session) error {
	return errkind.WithHint(errkind.New(errkind.NotFound, "session %q has no logs", s.Name),
		"banger vm session show "+s.VM+" "+s.Name)
}
