package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// An attached is an attachment as a client sees it.
type attached struct {
	t   *testing.T
	st  *connect.BidiStreamForClient[wire.AttachSessionRequest, wire.AttachSessionResponse]
	out map[string]string // by stream
	at  map[string]int64  // where that ends
	end *wire.AttachSessionResponse
}

func (b *sessionBed) attach(ctx context.Context, start *wire.AttachStart) *attached {
	b.t.Helper()
	a := &attached{t: b.t, st: b.AttachSession(ctx), out: map[string]string{}, at: map[string]int64{}}
	a.send(&wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Start{Start: start}})
	return a
}

func (a *attached) send(req *wire.AttachSessionRequest) {
	a.t.Helper()
	must(a.t, a.st.Send(req))
}

func (a *attached) typed(text string) {
	a.t.Helper()
	a.send(&wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Stdin{Stdin: []byte(text)}})
}

// until reads until done, or the end of the attachment.
func (a *attached) until(done func() bool) {
	a.t.Helper()
	for !done() {
		r, err := a.st.Receive()
		if err != nil {
			a.t.Fatalf("after %q: %v", a.out, err)
		}
		switch m := r.Msg.(type) {
		case *wire.AttachSessionResponse_Output:
			a.out[m.Output.Stream] += string(m.Output.Data)
			a.at[m.Output.Stream] = m.Output.Offset + int64(len(m.Output.Data))
		case *wire.AttachSessionResponse_Attached:
		default:
			a.end = r
			return
		}
	}
}

func (a *attached) ended() *wire.AttachSessionResponse {
	a.t.Helper()
	a.until(func() bool { return false })
	if _, err := a.st.Receive(); !errors.Is(err, io.EOF) {
		a.t.Errorf("after the last message: %v", err)
	}
	return a.end
}

func has(a *attached, text string) func() bool {
	return func() bool { return strings.Contains(a.out["stdout"], text) }
}

// One client at a time has the input; another may look on or take it.
func TestSessionAttach(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "echo begin; echo noise >&2; while read line; do echo got $line; done; exit 9")
	ann := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "ann"})
	ann.until(has(ann, "begin\n"))
	bob := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "bob"})
	if end := bob.ended(); end.GetRefused() != "ann" {
		t.Errorf("bob: %v", end)
	}
	eve := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "eve", ReadOnly: true})
	eve.typed("eve\n")
	ann.typed("ann\n")
	ann.until(has(ann, "got ann\n"))
	eve.until(has(eve, "got ann\n"))
	bob = b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "bob", Take: true})
	if end := ann.ended(); end.GetTaken() != "bob" {
		t.Errorf("ann: %v", end)
	}
	bob.typed("bob\n")
	bob.until(has(bob, "got bob\n"))
	bob.send(&wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_CloseStdin{CloseStdin: true}})
	for _, a := range []*attached{bob, eve} {
		if end := a.ended().GetEnded(); end.GetState() != "exited" || end.GetCode() != 9 {
			t.Errorf("end: %v", end)
		}
		if out := a.out["stdout"]; out != "begin\ngot ann\ngot bob\n" || a.out["stderr"] != "noise\n" {
			t.Errorf("out %q", a.out)
		}
	}
	// To one that has ended, for what it wrote and its code.
	late := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "late"})
	if end := late.ended().GetEnded(); end.GetCode() != 9 || late.out["stdout"] != bob.out["stdout"] {
		t.Errorf("end: %v, out %q", end, late.out)
	}
}

// A client or the agent that dies lets go of a session, which goes on; who comes
// again goes on where it was.
func TestSessionAttachAgain(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.005; done; exit 4")
	ctx, cancel := context.WithCancel(testContext(t))
	a := b.attach(ctx, &wire.AttachStart{Id: st.Id, Name: "a"})
	a.until(has(a, "\n"))
	out, at := a.out, a.at
	for i := range 4 {
		cancel()
		if i%2 == 1 {
			b.restart()
		}
		ctx, cancel = context.WithCancel(testContext(t))
		a = b.attach(ctx, &wire.AttachStart{Id: st.Id, Name: fmt.Sprint(i), Take: true, FromStdout: at["stdout"] + 1, FromStderr: at["stderr"] + 1})
		a.out, a.at = out, at
		want := len(out["stdout"]) + 20
		a.until(func() bool { return len(out["stdout"]) > want })
	}
	defer cancel()
	if end := a.ended().GetEnded(); end.GetCode() != 4 {
		t.Errorf("end: %v", end)
	}
	for stream, prefix := range map[string]string{"stdout": "", "stderr": "e"} {
		var want strings.Builder
		for i := range 200 {
			fmt.Fprintf(&want, "%s%d\n", prefix, i+1)
		}
		if out[stream] != want.String() {
			t.Errorf("%s: %q", stream, out[stream])
		}
	}
}

// paints tells its size each time that it is told to paint itself, and what it
// reads.
const paints = `stty -echo; exec 3<&0; trap "stty size <&3" WINCH
(trap - WINCH; while read -r line; do echo got $line; [ "$line" = q ] && exit 6; done) <&3 &
echo up; while :; do wait $!; code=$?; [ $code -lt 128 ] && exit $code; done`

// A session on a terminal has a size, which who attaches brings along, and is
// made to paint itself anew.
func TestSessionTerminal(t *testing.T) {
	b := newSessionBed(t)
	st := b.startWith(&wire.StartSessionRequest{Stdin: "pty", Command: &wire.ExecStart{
		Argv: []string{"bash", "--norc", "-c", paints},
		Cwd:  "/", Tty: &wire.Terminal{Term: "vt100", Size: &wire.WindowSize{Rows: 20, Cols: 70}},
	}})
	for b.log(st.Id, sessiondir.Stdout, false) == "" { // until it has its trap
		must(t, pause(testContext(t), time.Millisecond))
	}
	a := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Size: &wire.WindowSize{Rows: 30, Cols: 90}, Name: "a"})
	a.until(func() bool { return has(a, "up\r\n")() && has(a, "30 90\r\n")() })
	a.typed("hello\n")
	a.until(has(a, "got hello\r\n"))
	a.send(&wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Resize{Resize: &wire.WindowSize{Rows: 25, Cols: 80}}})
	a.until(has(a, "25 80\r\n"))
	again := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Size: &wire.WindowSize{Rows: 25, Cols: 80}, Name: "b", Take: true, Tail: -1})
	again.until(has(again, "25 80\r\n")) // the same size, and yet
	if res := b.send(&wire.SendStart{Id: st.Id}, "q\n"); res.BytesWritten != 2 {
		t.Errorf("send: %v", res)
	}
	if end := again.ended().GetEnded(); end.GetCode() != 6 {
		t.Errorf("end: %v", end)
	}
}

// Many may follow at once, for the kernel allows few instances of inotify, and
// a line reaches all of them soon.
func TestSessionFollowers(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "exec cat")
	var all sync.WaitGroup
	ready := make(chan struct{}, 300)
	for range cap(ready) {
		all.Go(func() {
			s, err := b.SessionLogs(testContext(t), connect.NewRequest(&wire.SessionLogsRequest{Id: st.Id, Streams: []string{"stdout"}, Follow: true}))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			got := ""
			for s.Receive() {
				if got == "" {
					ready <- struct{}{}
				}
				got += string(s.Msg().Data)
			}
			if got != "ready\nline\n" || s.Err() != nil {
				t.Errorf("got %q, %v", got, s.Err())
			}
		})
	}
	b.send(&wire.SendStart{Id: st.Id}, "ready\n")
	for range cap(ready) {
		<-ready
	}
	began := time.Now()
	b.send(&wire.SendStart{Id: st.Id, CloseStdin: true}, "line\n")
	all.Wait()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A reader that follows learns that a session was deleted.
func TestSessionFollowDeleted(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "echo up; exec sleep 1000")
	s, err := b.SessionLogs(testContext(t), connect.NewRequest(&wire.SessionLogsRequest{Id: st.Id, Streams: []string{string(sessiondir.Stdout)}, Follow: true}))
	must(t, err)
	defer s.Close()
	if !s.Receive() || string(s.Msg().Data) != "up\n" {
		t.Fatalf("got %v, %v", s.Msg(), s.Err())
	}
	_, err = b.DeleteSession(testContext(t), connect.NewRequest(&wire.DeleteSessionRequest{Id: st.Id}))
	must(t, err)
	for s.Receive() {
		t.Errorf("got %v", s.Msg())
	}
}

// Who is attached and dies while the command does not read gives back the hold
// and the turn.
func TestSessionAttachedDies(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "exec sleep 1000")
	ctx, cancel := context.WithCancel(testContext(t))
	a := b.attach(ctx, &wire.AttachStart{Id: st.Id, Name: "first"})
	go func() {
		for range 40 {
			if a.st.Send(&wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Stdin{Stdin: make([]byte, 60_000)}}) != nil {
				return
			}
		}
	}()
	for b.send(&wire.SendStart{Id: st.Id, TimeoutNs: int64(10 * time.Millisecond)}, "x").BytesWritten != 0 {
	} // until the pipe is full
	cancel()
	for {
		next := b.attach(testContext(t), &wire.AttachStart{Id: st.Id, Name: "second"})
		if r, err := next.st.Receive(); err == nil && r.GetRefused() == "" {
			break
		}
	}
	// The command's own end is what a turn is needed for.
	if res := b.send(&wire.SendStart{Id: st.Id, TimeoutNs: int64(10 * time.Second), CloseStdin: true}); res.TimedOut || res.Refused != "" {
		t.Errorf("end of input: %v, want one whose turn came", res)
	}
}

// The end can be typed on a terminal more than once.
func TestSessionTerminalEnds(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pty", "cat; echo one; cat; echo two")
	for _, want := range []string{"one\r\n", "two\r\n"} {
		if res := b.send(&wire.SendStart{Id: st.Id, CloseStdin: true}); res.Refused != "" {
			t.Errorf("end of input: %v", res)
		}
		for !strings.HasSuffix(b.log(st.Id, sessiondir.Stdout, false), want) {
			must(t, pause(testContext(t), time.Millisecond))
		}
	}
	b.ended(st.Id)
}
