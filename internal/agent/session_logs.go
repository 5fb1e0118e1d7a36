package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// SessionLogs implements the method of the protocol.
func (s service) SessionLogs(ctx context.Context, req *connect.Request[wire.SessionLogsRequest], stream *connect.ServerStream[wire.SessionLogsResponse]) error {
	in := req.Msg
	if _, err := s.sessions.get(in.Id); err != nil {
		return err
	}
	q, err := logQuery(in)
	if err != nil {
		return err
	}
	emit := func(c sessiondir.Chunk) error { return stream.Send(c.Wire()) }
	dir := sessiondir.OSDir(s.sessions.path(in.Id))
	if !in.Follow {
		return sessiondir.Read(ctx, dir, q, emit)
	}
	return s.sessions.follow(ctx, in.Id, q, emit)
}

// logQuery is what a request asks for, if it makes sense.
func logQuery(in *wire.SessionLogsRequest) (sessiondir.Query, error) {
	q := sessiondir.QueryOf(in)
	for i, stream := range q.Streams {
		if stream != sessiondir.Stdout && stream != sessiondir.Stderr || slices.Contains(q.Streams[:i], stream) {
			return q, invalid(fmt.Errorf("no stream %.40q", stream))
		}
	}
	switch {
	case len(q.Streams) == 0:
		return q, invalid(errors.New("logs of no stream"))
	case in.Tail < 0, in.From < 0, in.FromSecond < 0:
		return q, invalid(errors.New("logs from nowhere"))
	}
	return q, nil
}

const (
	// gather is how long more is waited for where something came so soon after
	// what was before it.
	gather = 5 * time.Millisecond
	// smallChunk is what is worth waiting for more, in bytes.
	smallChunk = 16 << 10
)

// A gatherer lets more of a stream come together where little comes at a time,
// which is carried on at the price of much. What comes alone is not kept waiting.
type gatherer struct{ last time.Time }

// took is called when n bytes were carried on, before the next are looked for.
func (g *gatherer) took(ctx context.Context, n int) {
	if time.Since(g.last) < gather && n < smallChunk {
		_ = pause(ctx, gather) // who was waited for finds out
	}
	g.last = time.Now()
}

// follow gives what a session writes until it has ended.
func (s *sessions) follow(ctx context.Context, id string, q sessiondir.Query, emit func(sessiondir.Chunk) error) error {
	var g gatherer
	w := s.watch.watch(s.path(id))
	defer w.stop()
	look := true // whether it has ended
	return sessiondir.Follow(ctx, sessiondir.OSDir(s.path(id)), q, func(ctx context.Context) (bool, error) {
		if look || w.statusChanged() {
			look = false
			if st, err := s.read(id); errors.Is(err, fs.ErrNotExist) {
				return true, nil // it was deleted
			} else if err == nil && sessiondir.State(st.State).Final() {
				return true, nil
			}
		}
		var err error
		look, err = w.wait(ctx)
		return false, err
	}, func(c sessiondir.Chunk) error {
		defer g.took(ctx, len(c.Data))
		return emit(c)
	})
}
