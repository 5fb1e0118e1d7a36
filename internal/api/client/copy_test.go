package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/transfer"
)

type copyServer struct {
	api.UnimplementedVMServiceHandler
	answer func(*connect.BidiStream[api.CopyRequest, api.CopyResponse]) error
}

func (s *copyServer) Copy(_ context.Context, st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
	if _, err := st.Receive(); err != nil {
		return err
	}
	return s.answer(st)
}

// copyClient returns a client of a daemon whose guests answer a copy like
// that.
func copyClient(t *testing.T, answer func(*connect.BidiStream[api.CopyRequest, api.CopyResponse]) error) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bgr-cp-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(api.NewVMServiceHandler(&copyServer{answer: answer}, connect.WithInterceptors(api.NewServerInterceptor(nil))))
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: mux, Protocols: &p}
	go srv.Serve(l)
	t.Cleanup(func() {
		srv.Close()
		os.RemoveAll(dir)
	})
	return New(l.Addr().String())
}

func itemResponse(it *wire.CopyItem) *api.CopyResponse {
	return &api.CopyResponse{Copy: &wire.CopyResponse{Msg: &wire.CopyResponse_Item{Item: it}}}
}

func failedResponse(r wire.CopyFailure_Reason, why string) *api.CopyResponse {
	return &api.CopyResponse{Copy: &wire.CopyResponse{Msg: &wire.CopyResponse_Failed{Failed: &wire.CopyFailure{Reason: r, Message: why}}}}
}

var (
	haveResponse = &api.CopyResponse{Copy: &wire.CopyResponse{Msg: &wire.CopyResponse_Have{Have: &wire.CopyHave{Offsets: []int64{1}}}}}
	stored       = &api.CopyResponse{Copy: &wire.CopyResponse{Msg: &wire.CopyResponse_Stored{Stored: true}}}
	oneFile      = itemResponse(&wire.CopyItem{Msg: &wire.CopyItem_File{File: &wire.CopyFile{SizeBytes: 1, Data: []byte("x")}}})
	longFile     = itemResponse(&wire.CopyItem{Msg: &wire.CopyItem_File{File: &wire.CopyFile{SizeBytes: 5, Data: []byte("x")}}})
	evilDir      = itemResponse(&wire.CopyItem{Msg: &wire.CopyItem_Dir{Dir: &wire.CopyDir{}}})
	evilFile     = itemResponse(&wire.CopyItem{Msg: &wire.CopyItem_File{File: &wire.CopyFile{Name: []byte("../evil"), SizeBytes: 1, Data: []byte("x")}}})
	doneCopy     = itemResponse(&wire.CopyItem{Msg: &wire.CopyItem_Done{Done: true}})
)

// What a guest may answer, and what it comes to.
var answers = map[string]struct {
	responses   []*api.CopyResponse
	err         error // of the daemon, then
	pulled      bool  // a copy out of the guest succeeds
	pushed      bool
	kind        errkind.Kind
	interrupted bool
	full        bool
	says        string
}{
	"a file":         {responses: []*api.CopyResponse{oneFile, doneCopy}, pulled: true, kind: errkind.Internal, interrupted: true},
	"stored":         {responses: []*api.CopyResponse{stored}, pushed: true, kind: errkind.Internal, interrupted: true},
	"nothing":        {kind: errkind.Internal, interrupted: true},
	"half a file":    {responses: []*api.CopyResponse{longFile}, kind: errkind.Internal, interrupted: true},
	"no response":    {responses: []*api.CopyResponse{{}}, kind: errkind.Internal, interrupted: true},
	"have unasked":   {responses: []*api.CopyResponse{haveResponse, haveResponse}, kind: errkind.Internal, interrupted: true},
	"not found":      {responses: []*api.CopyResponse{failedResponse(wire.CopyFailure_REASON_NOT_FOUND, "why")}, kind: errkind.NotFound, says: "why"},
	"in the way":     {responses: []*api.CopyResponse{failedResponse(wire.CopyFailure_REASON_CONFLICT, "why")}, kind: errkind.Conflict, says: "why"},
	"full":           {responses: []*api.CopyResponse{failedResponse(wire.CopyFailure_REASON_FULL, "why")}, kind: errkind.Internal, full: true, says: "why"},
	"unknown reason": {responses: []*api.CopyResponse{failedResponse(99, "why")}, kind: errkind.Internal, says: "why"},
	"no machine":     {err: errkind.New(errkind.NotFound, "no machine"), kind: errkind.NotFound, says: "no machine"},
	"not running":    {err: errkind.New(errkind.Conflict, "not running"), kind: errkind.Conflict, says: "not running"},
	"agent lost":     {responses: []*api.CopyResponse{longFile}, err: errors.New("lost the agent"), kind: errkind.Internal, interrupted: true},
}

var pullF = Pull{VM: "web", Sources: []string{"/f"}}

func TestCopyAnswers(t *testing.T) {
	for name, want := range answers {
		t.Run(name, func(t *testing.T) {
			c := copyClient(t, func(st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
				for _, r := range want.responses {
					if err := st.Send(r); err != nil {
						return err
					}
				}
				return want.err
			})
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			dir := t.TempDir()
			check := func(how string, err error, fine bool) {
				t.Helper()
				if fine {
					if err != nil {
						t.Errorf("%s: %v", how, err)
					}
					return
				}
				if err == nil || errkind.Of(err) != want.kind || errors.Is(err, ErrInterrupted) != want.interrupted ||
					errors.Is(err, ErrGuestFull) != want.full || !strings.Contains(err.Error(), want.says) {
					t.Errorf("%s: %v (%s, interrupted: %t)", how, err, errkind.Of(err), errors.Is(err, ErrInterrupted))
				}
			}
			r, err := transfer.NewReceiver(filepath.Join(dir, "dst"), transfer.ReceiveOptions{Names: []string{"f"}})
			if err != nil {
				t.Fatal(err)
			}
			check("pull", c.Pull(ctx, pullF, r), want.pulled)
			if err := r.Discard(); err != nil {
				t.Error(err)
			}
			if !want.pulled {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
			// More than fits in what may be under way: an answer must end it.
			src := filepath.Join(dir, "src")
			if err := os.WriteFile(src, make([]byte, 16<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			err = c.Push(ctx, Push{VM: "web", Target: "/f", Names: []string{"f"}}, func(ctx context.Context, out transfer.Out) error {
				return transfer.Send(ctx, out, []string{src}, transfer.SendOptions{})
			})
			check("push", err, want.pushed)
		})
	}
}

// waiter waits with an item until it is called off.
type waiter struct{ came func() }

func (w waiter) Item(ctx context.Context, _ *wire.CopyItem) (*wire.CopyHave, error) {
	w.came()
	<-ctx.Done()
	return nil, &os.PathError{Op: "write", Path: "f", Err: context.Cause(ctx)}
}

func (waiter) Whole() bool { return false }

// A receiver that waits can be called off, which is an interruption.
func TestPullCalledOff(t *testing.T) {
	c := copyClient(t, func(st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error { return st.Send(longFile) })
	defer c.Close()
	calledOff := errors.New("called off")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := c.Pull(ctx, pullF, waiter{func() { cancel(calledOff) }})
	if !errors.Is(err, ErrInterrupted) || !errors.Is(err, calledOff) {
		t.Errorf("called off: %v", err)
	}
}

// What the receiver refuses is its error, and leaves nothing.
func TestPullRefused(t *testing.T) {
	c := copyClient(t, func(st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
		return errors.Join(st.Send(evilDir), st.Send(evilFile), st.Send(doneCopy))
	})
	defer c.Close()
	dir := t.TempDir()
	r, err := transfer.NewReceiver(filepath.Join(dir, "dst"), transfer.ReceiveOptions{Names: []string{"f"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Pull(t.Context(), pullF, r); !errors.Is(err, transfer.ErrInvalid) || errors.Is(err, ErrInterrupted) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A source that cannot be read is the error, whatever the guest says of it; and
// a guest that says nothing is left when the caller wants.
func TestPushOwnError(t *testing.T) {
	aborted := make(chan bool, 1)
	c := copyClient(t, func(st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
		for {
			req, err := st.Receive()
			if errors.Is(err, io.EOF) {
				<-t.Context().Done() // and never answers
			}
			if err != nil {
				return err
			}
			if req.GetCopy().GetItem().GetAbort() {
				aborted <- true
				return st.Send(failedResponse(wire.CopyFailure_REASON_INVALID, "given up"))
			}
		}
	})
	defer c.Close()
	push := func(ctx context.Context, src string) error {
		return c.Push(ctx, Push{VM: "web", Target: "/f", Names: []string{"f"}}, func(ctx context.Context, out transfer.Out) error {
			return transfer.Send(ctx, out, []string{src}, transfer.SendOptions{})
		})
	}
	if err := push(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if !<-aborted {
		t.Error("the guest was not told")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if err := push(ctx, "/proc/self/status"); !errors.Is(err, why) || !errors.Is(err, ErrInterrupted) {
		t.Error(err)
	}
}

// What there is to tell of the machine is told, and is no part of the copy.
func TestCopyNotices(t *testing.T) {
	c := copyClient(t, func(st *connect.BidiStream[api.CopyRequest, api.CopyResponse]) error {
		notice := func(line string) error { return st.Send(&api.CopyResponse{Notice: line}) }
		return errors.Join(notice("paused"), st.Send(longFile), notice("goes on"))
	})
	defer c.Close()
	var told []string
	p := pullF
	p.Notice = func(line string) { told = append(told, line) }
	r, err := transfer.NewReceiver(filepath.Join(t.TempDir(), "dst"), transfer.ReceiveOptions{Names: []string{"f"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Pull(t.Context(), p, r); !errors.Is(err, ErrInterrupted) {
		t.Errorf("a copy without its end: %v", err)
	}
	if err := r.Discard(); err != nil {
		t.Error(err)
	}
	if want := []string{"paused", "goes on"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
