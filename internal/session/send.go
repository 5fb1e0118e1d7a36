package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// sendChunk is how much of what is sent goes to the agent as one message, in
// bytes.
const sendChunk = 64 << 10

// Input is what is to be written to a session's command.
type Input struct {
	Next    func() ([]byte, error) // the next of it; [io.EOF]: there is no more
	EOF     bool                   // ends the command's input after it
	Timeout time.Duration          // how long the command may take to read it; 0: as long as ctx lasts
}

// Sent is what came of that.
type Sent struct {
	Bytes    int64 // that were written
	TimedOut bool  // less than all was written in time
}

// Send writes to a session's input, whole: nothing that another call sends
// comes in between. A machine that does not run, a session that does not, and
// one whose input cannot be written are [errkind.Conflict]; with nothing to
// write, that is all that is looked at.
func (m *Manager) Send(ctx context.Context, machine, ref string, in Input) (Sent, error) {
	t, s, err := m.findRunning(ctx, machine, ref)
	if err != nil {
		return Sent{}, err
	}
	defer t.done()
	// The agent refuses by itself what cannot be: one that is recorded as
	// running is not asked for twice.
	looked := s.checkInput() != nil
	if looked {
		if s, err = m.checkInput(ctx, s); err != nil {
			return Sent{}, err
		}
	}
	first, err := nextOf(in)
	switch {
	case errors.Is(err, io.EOF) && !in.EOF && looked:
		return Sent{}, nil
	case errors.Is(err, io.EOF) && !in.EOF:
		_, err := m.checkInput(ctx, s)
		return Sent{}, err
	case err != nil && !errors.Is(err, io.EOF):
		return Sent{}, err
	}
	_, stop := m.d.Machines.Notices(t.vm.ID)
	defer stop()
	sent, resp, err := m.send(ctx, t, s, in, first)
	if err != nil {
		return Sent{}, err
	}
	out := Sent{Bytes: min(max(0, resp.GetBytesWritten()), sent), TimedOut: resp.GetTimedOut()}
	if resp.GetRefused() != "" {
		return out, m.refused(ctx, s, resp.GetRefused(), out.Bytes)
	}
	return out, nil
}

// checkInput looks at a session, and refuses one that cannot be written to.
func (m *Manager) checkInput(ctx context.Context, s Session) (Session, error) {
	s, err := m.lookOne(ctx, s)
	if err != nil {
		return s, err
	}
	return s, s.checkInput()
}

// nextOf returns the next of an input that is not empty.
func nextOf(in Input) ([]byte, error) {
	for {
		if data, err := in.Next(); len(data) > 0 || err != nil {
			return data, err
		}
	}
}

// send carries an input to the agent, of which first was read, and returns its
// answer and how much was sent.
func (m *Manager) send(ctx context.Context, t target, s Session, in Input, first []byte) (sent int64, resp *wire.SendSessionResponse, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the agent gives up what is not whole
	up := t.agent.SendSession(ctx)
	start := &wire.SendStart{Id: string(s.ID), CloseStdin: in.EOF, TimeoutNs: int64(max(0, in.Timeout))}
	err = up.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Start{Start: start}})
	for data := first; err == nil; {
		n := min(len(data), sendChunk)
		if n > 0 {
			err = up.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Data{Data: data[:n]}})
			data, sent = data[n:], sent+int64(n)
			continue
		}
		if data, err = nextOf(in); err != nil && !errors.Is(err, io.EOF) {
			return sent, nil, err // the caller has gone
		}
	}
	answer, err := up.CloseAndReceive()
	if err != nil {
		return sent, nil, m.broken(ctx, t, s, err, "input was sent to session "+s.Name)
	}
	return sent, answer.Msg, nil
}

// refused tells why the agent did not write all of an input.
func (m *Manager) refused(ctx context.Context, s Session, why string, written int64) error {
	now, err := m.lookOne(ctx, s)
	if err == nil {
		err = now.checkRuns()
	}
	if err == nil {
		err = noPipe()
	}
	if now.LastError != "" { // what it says now could not be asked
		err = errkind.New(errkind.Conflict, "%s", printable(why))
	}
	if written > 0 {
		return fmt.Errorf("%w; %d bytes were written before", err, written)
	}
	return err
}
