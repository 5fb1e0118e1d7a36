package client

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/transfer"
)

// ErrInterrupted says that a copy broke off in the middle: what was carried by
// then can be used by another one that resumes it.
var ErrInterrupted = errors.New("the copy was interrupted")

// ErrGuestFull says that there is no room in the guest for a copy.
var ErrGuestFull = errors.New("no room in the guest")

// Push says where a copy into a machine goes.
type Push struct {
	VM     string
	Target string   // a path in the guest
	Names  []string // see [transfer.ReceiveOptions]
	Resume bool
	Notice func(string) // is told lines for people about the machine
}

// Pull says where a copy out of a machine comes from.
type Pull struct {
	VM      string
	Sources []string // paths in the guest
	Resume  bool
	Notice  func(string) // as that of Push
}

// Push copies into a running machine what send sends, which is one of package
// transfer's functions. An error that is not send's own wraps
// [ErrInterrupted], if the copy had begun; [ErrGuestFull]; or neither, with a
// kind that says what is in the way.
func (c *Client) Push(ctx context.Context, p Push, send func(context.Context, transfer.Out) error) error {
	start := &wire.CopyStart{Target: []byte(p.Target), Names: raw(p.Names), Resume: p.Resume}
	st, err := c.copy(ctx, p.VM, start, p.Notice)
	if err != nil {
		return err
	}
	defer st.close()
	out := &pushOut{copying: st, answers: make(chan *wire.CopyHave, 1), end: make(chan struct{})}
	go out.receive()
	err = send(st.ctx, out)
	if cause := context.Cause(st.ctx); err != nil && out.broken == nil && (cause == nil || !errors.Is(err, cause) && !errors.Is(err, st.ctx.Err())) {
		<-out.end // the other end has been told, and leaves nothing
		return err
	}
	_ = st.s.CloseRequest() // if it fails, the answer says why
	<-out.end
	return out.err
}

// A Taker takes the items of a copy: a [transfer.Receiver] or
// [transfer.Writer]. An error of Item that is the cause of its context's end
// is an interruption.
type Taker interface {
	Item(context.Context, *wire.CopyItem) (*wire.CopyHave, error)
	Whole() bool
}

// Pull copies files out of a running machine: to takes them. The error is to's
// own, or as that of [Client.Push].
func (c *Client) Pull(ctx context.Context, p Pull, to Taker) error {
	st, err := c.copy(ctx, p.VM, &wire.CopyStart{Sources: raw(p.Sources), Resume: p.Resume}, p.Notice)
	if err != nil {
		return err
	}
	defer st.close()
	for {
		resp, err := st.receive()
		if errors.Is(err, io.EOF) && to.Whole() {
			return nil
		}
		if err != nil {
			return st.why(err)
		}
		if resp.GetItem() == nil {
			return st.why(errNoItem)
		}
		have, err := to.Item(st.ctx, resp.GetItem())
		if cause := context.Cause(st.ctx); cause != nil && errors.Is(err, cause) {
			return st.why(err)
		}
		if err != nil {
			return err
		}
		if have == nil {
			continue
		}
		if err := st.send(&wire.CopyRequest{Msg: &wire.CopyRequest_Have{Have: have}}); err != nil && !errors.Is(err, io.EOF) {
			return st.why(err)
		}
	}
}

var errNoItem = errors.New("the agent does not send what it should")

func raw(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

// copying is the stream of one copy.
type copying struct {
	ctx    context.Context
	cancel context.CancelFunc
	s      *connect.BidiStreamForClient[api.CopyRequest, api.CopyResponse]
	notice func(string)
}

func (c *Client) copy(ctx context.Context, vm string, start *wire.CopyStart, notice func(string)) (*copying, error) {
	ctx, cancel := context.WithCancel(ctx)
	st := &copying{ctx: ctx, cancel: cancel, s: c.VM.Copy(ctx), notice: notice}
	first := &api.CopyIn{Vm: vm, Copy: start}
	if err := st.s.Send(&api.CopyRequest{Msg: &api.CopyRequest_Start{Start: first}}); err != nil {
		err = notSent(err, st.s)
		cancel()
		return nil, err
	}
	return st, nil
}

func (st *copying) close() {
	st.cancel() // ends what has not ended
	_ = st.s.CloseResponse()
}

func (st *copying) send(r *wire.CopyRequest) error {
	return st.s.Send(&api.CopyRequest{Msg: &api.CopyRequest_Copy{Copy: r}})
}

// receive returns the next response that is not a failure, and hands out
// notices.
func (st *copying) receive() (*wire.CopyResponse, error) {
	resp, err := st.s.Receive()
	for ; err == nil && resp.GetNotice() != ""; resp, err = st.s.Receive() {
		st.notice(resp.GetNotice())
	}
	if err != nil {
		return nil, err
	}
	if f := resp.GetCopy().GetFailed(); f != nil {
		return nil, &guestError{f}
	}
	return resp.GetCopy(), nil
}

// why says what the end of a stream means.
func (st *copying) why(err error) error {
	var ge *guestError
	switch {
	case errors.As(err, &ge):
		return ge.kind()
	case errors.Is(err, io.EOF):
		err = errors.New("the agent ended the copy before its end")
	}
	if cause := context.Cause(st.ctx); cause != nil {
		return &interrupted{cause}
	}
	switch errkind.Of(err) {
	case errkind.Usage, errkind.NotFound, errkind.Conflict:
		return err // the daemon has not begun
	}
	return &interrupted{err}
}

// interrupted is err, and [ErrInterrupted].
type interrupted struct{ err error }

func (e *interrupted) Error() string        { return e.err.Error() }
func (e *interrupted) Unwrap() error        { return e.err }
func (e *interrupted) Is(target error) bool { return target == ErrInterrupted }

// guestError is why the guest's end cannot go on.
type guestError struct{ f *wire.CopyFailure }

func (e *guestError) Error() string { return e.f.GetMessage() }

// reasons give what stands in the way in a guest its kind.
var reasons = map[wire.CopyFailure_Reason]errkind.Kind{
	wire.CopyFailure_REASON_NOT_FOUND: errkind.NotFound,
	wire.CopyFailure_REASON_CONFLICT:  errkind.Conflict,
}

func (e *guestError) kind() error {
	if e.f.GetReason() == wire.CopyFailure_REASON_FULL {
		return &full{e}
	}
	if k, ok := reasons[e.f.GetReason()]; ok {
		return errkind.Wrap(k, e)
	}
	return e
}

// full is err, and [ErrGuestFull].
type full struct{ error }

func (e *full) Unwrap() error        { return e.error }
func (e *full) Is(target error) bool { return target == ErrGuestFull }

// pushOut is the way of what is sent, and of what is answered.
type pushOut struct {
	*copying
	broken  error // of sending
	answers chan *wire.CopyHave
	end     chan struct{} // closed when there is no answer any more
	err     error         // why; set before end is closed
}

// Send implements transfer.Out.
func (o *pushOut) Send(it *wire.CopyItem) error {
	o.broken = o.send(&wire.CopyRequest{Msg: &wire.CopyRequest_Item{Item: it}})
	return o.broken
}

// Have implements transfer.Out.
func (o *pushOut) Have() (*wire.CopyHave, error) {
	select {
	case h := <-o.answers:
		return h, nil
	case <-o.end:
		o.broken = io.EOF
		return nil, o.broken
	}
}

// receive takes answers until the last, and ends the sending then.
func (o *pushOut) receive() {
	defer close(o.end)
	defer o.cancel()
	for {
		resp, err := o.copying.receive()
		switch {
		case err != nil:
			o.err = o.why(err)
			return
		case resp.GetStored():
			return
		}
		select {
		case o.answers <- resp.GetHave():
		default:
			o.err = o.why(errNoItem) // nobody has asked
			return
		}
	}
}
