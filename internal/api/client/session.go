package client

import (
	"cmp"
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/guest/wire"
)

// StartSession starts a command that outlives this call. The request says
// everything but the command. A command that cannot be started is no error: the
// session says that it failed.
func (c *Client) StartSession(ctx context.Context, req *api.StartSessionRequest, s Start) (*api.Session, error) {
	req.Command = s.wire()
	resp, err := c.Session.StartSession(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetSession(), nil
}

// Sent is what became of input that was sent to a session.
type Sent struct {
	Answer *api.SendSessionResponse // nil if there was an error
	Bytes  int64                    // that were read and sent
	Whole  bool                     // there was no more to read
}

// SendSession writes what data gives to a session's input, whole and at once.
// That the command did not read all of it in time is no error. It may leave a
// goroutine behind that reads data; an error of reading ends the call.
func (c *Client) SendSession(ctx context.Context, in *api.SendIn, data io.Reader) (Sent, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sent Sent
	stream := c.Session.SendSession(ctx)
	err := stream.Send(&api.SendSessionRequest{Msg: &api.SendSessionRequest_Start{Start: in}})
	if err != nil && !errors.Is(err, io.EOF) {
		_, _ = stream.CloseAndReceive() // nobody would ever answer
		return sent, notUTF8(err)
	}
	chunks := readChunks(ctx, data)
	for err == nil {
		var part chunk
		select {
		case part = <-chunks:
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		}
		if errors.Is(part.err, io.EOF) {
			sent.Whole = true
			break
		}
		if part.err != nil {
			cancel(part.err)
			return sent, part.err
		}
		sent.Bytes += int64(len(part.data))
		// Why it fails, the answer tells.
		err = stream.Send(&api.SendSessionRequest{Msg: &api.SendSessionRequest_Data{Data: part.data}})
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return sent, err
	}
	sent.Answer = resp.Msg
	return sent, nil
}

// sendChunk is how much of what is sent to a session is read at once, in bytes.
const sendChunk = 64 << 10

// chunk is a part of what is read, or why there is none.
type chunk struct {
	data []byte
	err  error
}

// readChunks reads r until its end, an error, which comes last, or ctx's end.
func readChunks(ctx context.Context, r io.Reader) <-chan chunk {
	chunks := make(chan chunk)
	go func() {
		for {
			buf := make([]byte, sendChunk)
			n, err := r.Read(buf)
			for _, part := range []chunk{{data: buf[:n]}, {err: err}} {
				if len(part.data) == 0 && part.err == nil {
					continue
				}
				select {
				case chunks <- part:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return chunks
}

// Attach says which session is joined, and how.
type Attach struct {
	VM, Session string
	Who         string // attaches, for the next who wants to
	Take        bool   // in the place of who is attached
	ReadOnly    bool
	TTY         *TTY  // our terminal; nil: there is none
	Tail        int32 // lines of each stream to begin with; negative: none
	// Where to go on in each stream: so many bytes into it, plus 1, in the
	// place of Tail; 0: not given.
	FromStdout, FromStderr int64
}

// An Attachment joins us to a session. What is sent may be sent by several
// goroutines at once; one alone may receive. It ends when Receive returns an
// error, or with the context it was made with; the session goes on.
type Attachment struct {
	input
	stream *connect.BidiStreamForClient[api.AttachSessionRequest, api.AttachSessionResponse]
}

// Attach joins the caller to a session. That somebody else is attached already
// is an error of kind conflict, which Receive returns.
func (c *Client) Attach(ctx context.Context, at Attach) (*Attachment, error) {
	start := &wire.AttachStart{
		Name: at.Who, Take: at.Take, ReadOnly: at.ReadOnly, Tail: at.Tail,
		FromStdout: at.FromStdout, FromStderr: at.FromStderr,
	}
	if at.TTY != nil {
		start.Size = windowSize(at.TTY.Rows, at.TTY.Cols)
	}
	stream := c.Session.AttachSession(ctx)
	in := &api.AttachIn{Vm: at.VM, Session: at.Session, Attach: start}
	if err := stream.Send(&api.AttachSessionRequest{Msg: &api.AttachSessionRequest_Start{Start: in}}); err != nil {
		return nil, notSent(err, stream)
	}
	return &Attachment{stream: stream, input: input{send: func(r *wire.ExecRequest) error {
		return stream.Send(&api.AttachSessionRequest{Msg: &api.AttachSessionRequest_Attach{Attach: attachRequest(r)}})
	}}}, nil
}

// attachRequest is what a command gets, for a session.
func attachRequest(r *wire.ExecRequest) *wire.AttachSessionRequest {
	switch m := r.GetMsg().(type) {
	case *wire.ExecRequest_Stdin:
		return &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Stdin{Stdin: m.Stdin}}
	case *wire.ExecRequest_CloseStdin:
		return &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_CloseStdin{CloseStdin: m.CloseStdin}}
	case *wire.ExecRequest_Resize:
		return &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Resize{Resize: m.Resize}}
	case *wire.ExecRequest_Signal:
		return &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Signal{Signal: m.Signal}}
	}
	panic("internal error: a session gets no such request")
}

// Leave says that nothing more will be sent: what was is delivered, and then
// Receive returns an error.
func (a *Attachment) Leave() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.CloseRequest()
}

// AttachEvent is one thing that an [Attachment] has to tell: the field that is
// not zero.
type AttachEvent struct {
	Session *api.Session // we are attached; comes first
	Output  *Output
	Ended   *SessionEnd // comes last; all output came before
	Taken   string      // comes last: who has taken our place
	Notice  string      // the machine came to stand, or goes on: a line for people
}

// Output is some of what a session wrote.
type Output struct {
	Stream string // "stdout" or "stderr"
	Offset int64  // of Data, in all that the stream ever held
	Data   []byte
	Mark   bool // Data is not the command's, but tells what is missing
}

// SessionEnd tells how a session ended.
type SessionEnd struct {
	Failed         bool
	Stage, Message string // of one that failed
	Code           int    // of one that exited, as a shell gives it: 128+n for signal n
}

// Receive returns the next event.
func (a *Attachment) Receive() (AttachEvent, error) {
	resp, err := a.stream.Receive()
	if err != nil {
		return AttachEvent{}, err
	}
	e := AttachEvent{Session: resp.GetSession(), Notice: resp.GetNotice()}
	if t, ok := resp.GetAttach().GetMsg().(*wire.AttachSessionResponse_Taken); ok {
		e.Taken = cmp.Or(t.Taken, "somebody")
	}
	if o := resp.GetAttach().GetOutput(); o != nil {
		e.Output = &Output{Stream: o.Stream, Offset: o.Offset, Data: o.Data, Mark: o.Mark}
	}
	if s := resp.GetAttach().GetEnded(); s != nil {
		e.Ended = &SessionEnd{Failed: s.State == "failed", Stage: s.Stage, Message: s.Message, Code: int(s.Code)}
	}
	return e, nil
}
