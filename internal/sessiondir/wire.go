package sessiondir

import (
	"time"

	"banger/internal/guest/wire"
)

// Wire is the status of the session with that id as the agent and the
// daemon tell it to each other.
func (s Status) Wire(id string) *wire.SessionStatus {
	return &wire.SessionStatus{
		Id: id, State: string(s.State), Pid: int32(s.Command.PID),
		Code: int32(s.Code), Signal: s.Signal, Stage: s.Stage, Message: s.Message,
		StartedNs: nanoseconds(s.StartedAt), EndedNs: nanoseconds(s.EndedAt), StdinOpen: s.StdinOpen,
	}
}

// nanoseconds since 1970; 0 for the zero time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Wire is the chunk as it is sent.
func (c Chunk) Wire() *wire.SessionLogsResponse {
	return &wire.SessionLogsResponse{Stream: string(c.Stream), Offset: c.Offset, Data: c.Data, Mark: c.Mark}
}

// QueryOf returns what a request asks for. It does not check that there are
// such streams; of more than two, the others begin nowhere else.
func QueryOf(r *wire.SessionLogsRequest) Query {
	q := Query{Tail: int(r.GetTail()), From: make(map[Stream]int64)}
	from := []int64{r.GetFrom(), r.GetFromSecond()}
	for i, name := range r.GetStreams() {
		stream := Stream(name)
		q.Streams = append(q.Streams, stream)
		if i < len(from) && from[i] > 0 {
			q.From[stream] = from[i] - 1
		}
	}
	if r.GetSinceNs() != 0 {
		q.Since = time.Unix(0, r.GetSinceNs())
	}
	return q
}
