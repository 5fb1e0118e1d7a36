package session

import (
	"context"
	"errors"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// An Attachment is a session that somebody is being joined to. Its methods are
// for one caller at a time, who calls Close in the end.
type Attachment struct {
	Agent wire.AgentServiceClient // whose AttachSession the caller is joined to
	First *wire.AttachSessionRequest
	VM    vm.ID

	m *Manager
	t target
	s Session
}

// Attach prepares to join a caller to a session. A machine that does not run is
// [errkind.Conflict], as is a session that failed. Of one that has exited the
// caller is told what it wrote, and how it ended.
func (m *Manager) Attach(ctx context.Context, machine, ref string, start *wire.AttachStart) (*Attachment, error) {
	t, s, err := m.findRunning(ctx, machine, ref)
	if err != nil {
		return nil, err
	}
	if s, err = m.checkAttachable(ctx, s); err != nil {
		t.done()
		return nil, err
	}
	start = &wire.AttachStart{
		Id: string(s.ID), Name: printable(start.GetName()), Take: start.GetTake(), ReadOnly: start.GetReadOnly(),
		Size: start.GetSize(), Tail: start.GetTail(), FromStdout: start.GetFromStdout(), FromStderr: start.GetFromStderr(),
	}
	first := &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Start{Start: start}}
	return &Attachment{Agent: t.agent, First: first, VM: t.vm.ID, m: m, t: t, s: s}, nil
}

// checkAttachable refuses a session that nobody can be joined to; what cannot
// be besides, the agent refuses by itself.
func (m *Manager) checkAttachable(ctx context.Context, s Session) (Session, error) {
	if s.Status.Runs() || s.Status == Exited {
		return s, nil
	}
	s, err := m.lookOne(ctx, s)
	if err != nil || s.Status == Exited {
		return s, err
	}
	return s, s.checkRuns()
}

// Close says that the caller has left. It may be called twice.
func (a *Attachment) Close() { a.t.done() }

// Answer takes an answer of the agent and returns what goes to the caller: the
// session, for the first answer, or else what the agent says. A refusal is an
// error.
func (a *Attachment) Answer(ctx context.Context, resp *wire.AttachSessionResponse) (*Session, *wire.AttachSessionResponse, error) {
	switch msg := resp.GetMsg().(type) {
	case *wire.AttachSessionResponse_Attached:
		now, err := a.saw(ctx, told(msg.Attached))
		return &now, nil, err
	case *wire.AttachSessionResponse_Ended:
		clean, err := a.ended(ctx, told(msg.Ended))
		return nil, clean, err
	case *wire.AttachSessionResponse_Taken:
		return nil, &wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Taken{Taken: printable(msg.Taken)}}, nil
	case *wire.AttachSessionResponse_Refused:
		return nil, nil, a.refused(printable(msg.Refused))
	case *wire.AttachSessionResponse_Output:
		return nil, resp, toldOutput(msg.Output, []string{Stdout, Stderr})
	}
	return nil, nil, errors.New("the guest answers what nobody asked for")
}

// Last reports whether an answer ends the attachment.
func (a *Attachment) Last(resp *wire.AttachSessionResponse) bool {
	switch resp.GetMsg().(type) {
	case *wire.AttachSessionResponse_Ended, *wire.AttachSessionResponse_Taken:
		return true
	}
	return false
}

// Broken tells why the stream to the agent broke.
func (a *Attachment) Broken(ctx context.Context, err error) error {
	return a.m.broken(ctx, a.t, a.s, err, "session "+a.s.Name+" was attached")
}

// ended records how the session ended, and returns that for the caller.
func (a *Attachment) ended(ctx context.Context, n Seen) (*wire.AttachSessionResponse, error) {
	if n.Status.Runs() {
		return nil, errors.New("the guest says that the session ended, and that it runs")
	}
	if !n.Status.Final() {
		return nil, errors.New(n.LastError)
	}
	if _, err := a.saw(ctx, n); err != nil && errkind.Of(err) != errkind.NotFound {
		return nil, err // one that was deleted has ended all the same
	}
	return &wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Ended{Ended: statusOf(a.s.ID, n)}}, nil
}

// saw records what was seen, also when the caller has just gone.
func (a *Attachment) saw(ctx context.Context, n Seen) (Session, error) {
	ctx, cancel := a.m.detached(ctx, a.m.patience.act)
	defer cancel()
	return a.m.saw(ctx, a.s, n)
}

// refused tells who is in the way.
func (a *Attachment) refused(who string) error {
	if who == "" {
		who = "somebody without a name"
	}
	at := a.s.VM + " " + a.s.Name
	return errkind.WithHint(errkind.New(errkind.Conflict, "attached already: %s", who),
		"banger vm session attach --take "+at, "banger vm session attach --read-only "+at)
}
