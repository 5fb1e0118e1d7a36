package server

import (
	"context"

	"banger/internal/api"
	"banger/internal/guest/wire"
	"banger/internal/trace"
)

// sendTrace tells a run's caller what was recorded for it, if that was asked
// for. That the caller has gone, who sends next finds out.
func sendTrace(ctx context.Context, stream *runStream) {
	r := trace.From(ctx)
	if r == nil {
		return
	}
	stages, dropped := r.Stages()
	t := &api.Trace{Dropped: int32(dropped)}
	for _, s := range stages {
		t.Stages = append(t.Stages, &api.Stage{Row: s.Row, Name: s.Name, StartNs: s.Start, LengthNs: s.Length})
	}
	_ = stream.Send(&api.RunResponse{Msg: &api.RunResponse_Trace{Trace: t}})
}

// tracedCommand records a command's way in the guest, which began with its
// request, by the answers that send is given. Call end when there is none any
// more.
func tracedCommand(ctx context.Context, send func(*wire.ExecResponse) error) (traced func(*wire.ExecResponse) error, end func()) {
	now := trace.Span(ctx, trace.Guest, "start the command")
	return func(resp *wire.ExecResponse) error {
		switch {
		case resp.GetStarted() != nil:
			now()
			now = trace.Span(ctx, trace.Guest, "command")
		case resp.GetExit() != nil:
			now()
		}
		return send(resp)
	}, func() { now() }
}
