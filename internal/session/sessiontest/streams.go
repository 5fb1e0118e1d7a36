package sessiontest

import (
	"bytes"
	"context"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// SessionLogs sends what a session wrote: the last lines of each stream, one
// stream after the other.
func (g *Guest) SessionLogs(ctx context.Context, req *connect.Request[wire.SessionLogsRequest], stream *connect.ServerStream[wire.SessionLogsResponse]) error {
	sent := make(map[string]int)
	for first := true; ; first = false {
		var pieces []*wire.SessionLogsResponse
		var more, ended chan struct{}
		_, err := g.do(ctx, "SessionLogs", req.Msg.Id, func(s *running) error {
			more, ended = s.more, s.ended
			for i, name := range req.Msg.Streams {
				out := s.output[name]
				if first {
					from := []int64{req.Msg.From, req.Msg.FromSecond}[i]
					sent[name] = begin(out, int(req.Msg.Tail), from)
				}
				if sent[name] < len(out) {
					pieces = append(pieces, &wire.SessionLogsResponse{Stream: name, Offset: int64(sent[name]), Data: bytes.Clone(out[sent[name]:])})
				}
				sent[name] = len(out)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, p := range pieces {
			if err := stream.Send(p); err != nil {
				return err
			}
		}
		if !req.Msg.Follow {
			return nil
		}
		select {
		case <-more:
		case <-ended:
			req.Msg.Follow = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin is where the last lines of an output begin, or where to go on.
func begin(out []byte, tail int, from int64) int {
	if from > 0 {
		return min(int(from-1), len(out))
	}
	at := len(bytes.TrimSuffix(out, []byte("\n")))
	for range tail {
		if at = bytes.LastIndexByte(out[:at], '\n'); at < 0 {
			return 0
		}
	}
	if tail == 0 {
		return 0
	}
	return at + 1
}

// AttachSession joins the stream to a session.
func (g *Guest) AttachSession(ctx context.Context, stream *connect.BidiStream[wire.AttachSessionRequest, wire.AttachSessionResponse]) error {
	req, err := stream.Receive()
	if err != nil {
		return err
	}
	start := req.GetStart()
	var first *wire.AttachSessionResponse
	var s *running
	var taken chan string
	_, err = g.do(ctx, "AttachSession", start.Id, func(r *running) error {
		s = r
		if s.attached != "" && !start.Take && !start.ReadOnly {
			first = &wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Refused{Refused: s.attached}}
			return nil
		}
		first = &wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Attached{Attached: g.says(s)}}
		if !start.ReadOnly {
			taken = s.take(start.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := stream.Send(first); err != nil || first.GetAttached() == nil {
		return err
	}
	defer g.leave(s, taken)
	go g.pump(s, taken, stream)
	return g.follow(ctx, s, taken, stream)
}

// take makes somebody the one who is attached, in the place of who was.
func (s *running) take(name string) chan string {
	if s.taken != nil {
		s.taken <- name
	}
	s.attached, s.taken = name, make(chan string, 1)
	return s.taken
}

// leave ends an attachment that nobody has taken.
func (g *Guest) leave(s *running, taken chan string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if taken != nil && s.taken == taken {
		s.attached, s.taken = "", nil
	}
}

// pump hands on the input of who is attached.
func (g *Guest) pump(s *running, taken chan string, stream *connect.BidiStream[wire.AttachSessionRequest, wire.AttachSessionResponse]) {
	for {
		req, err := stream.Receive()
		if err != nil {
			return
		}
		g.mu.Lock()
		if taken != nil && s.taken == taken && s.refuses() == "" {
			s.input(req.GetStdin(), req.GetCloseStdin())
		}
		g.mu.Unlock()
	}
}

// follow sends output until the session has ended or was taken.
func (g *Guest) follow(ctx context.Context, s *running, taken chan string, stream *connect.BidiStream[wire.AttachSessionRequest, wire.AttachSessionResponse]) error {
	for sent := 0; ; {
		g.mu.Lock()
		data, more, st, runs := bytes.Clone(s.output["stdout"][sent:]), s.more, g.says(s), s.runs()
		g.mu.Unlock()
		if len(data) > 0 {
			out := &wire.SessionLogsResponse{Stream: "stdout", Offset: int64(sent), Data: data}
			if err := stream.Send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Output{Output: out}}); err != nil {
				return err
			}
			sent += len(data)
		}
		if !runs {
			return stream.Send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Ended{Ended: st}})
		}
		select {
		case <-more:
		case <-s.ended:
		case by := <-taken:
			return stream.Send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Taken{Taken: by}})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
