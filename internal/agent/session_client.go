package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// Why a session takes no input. The words are the API's too.
const (
	noStdinPipe = "session does not have a stdin pipe"
	notRunning  = "session is not running (status=%s)"
)

// refusal is what keeps a session from being sent to; empty: nothing does.
func refusal(st *wire.SessionStatus) string {
	switch state := sessiondir.State(st.State); {
	case state.Final():
		return fmt.Sprintf(notRunning, state)
	case state == sessiondir.Starting:
		return fmt.Sprintf(notRunning, state)
	case !st.StdinOpen:
		return noStdinPipe
	}
	return ""
}

// reach connects to a session's supervisor, until ctx ends.
func (s *sessions) reach(ctx context.Context, id string, h hello) (*sessionConn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", s.socket(id))
	if err != nil {
		return nil, fmt.Errorf("reach the session's supervisor: %w", err)
	}
	c := &sessionConn{Conn: raw, r: bufio.NewReader(raw)}
	data, err := json.Marshal(h)
	if err == nil {
		err = c.write(frameHello, data)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// listens reports whether a session has a supervisor that can be reached.
func (s *sessions) listens(id string) bool {
	c, err := net.Dial("unix", s.socket(id))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// refusedError is what a supervisor refused.
type refusedError struct{ why string }

func (e refusedError) Error() string { return e.why }

// answer reads what a supervisor answers.
func (c *sessionConn) answer() (frame, error) {
	f, err := c.read()
	if err == nil && f.kind == frameRefused {
		err = refusedError{oneLine(errors.New(string(f.data)))}
	}
	return f, err
}

// written is how much of what was sent was written, as f says.
func (f frame) written() (int64, error) {
	if f.kind != frameWritten || len(f.data) != 8 {
		return 0, errors.New("the session's supervisor answered something else")
	}
	return int64(binary.BigEndian.Uint64(f.data)), nil
}

// control has a session's supervisor do one thing. With await it returns when
// the supervisor has ended.
func (s *sessions) control(ctx context.Context, id string, kind byte, data []byte, await bool) error {
	c, err := s.reach(ctx, id, hello{Purpose: purposeControl})
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := c.write(kind, data); err != nil {
		return err
	}
	if _, err := c.answer(); err != nil {
		return err
	}
	if await {
		_, _ = c.read() // its end
	}
	return ctx.Err()
}

// invalid is err as the caller's fault.
func invalid(err error) error { return connect.NewError(connect.CodeInvalidArgument, err) }
