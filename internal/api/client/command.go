package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/trace"
)

// Start is what to run in a machine, and how.
type Start struct {
	Argv  []string          // never passed to a shell
	Env   map[string]string // beside what the guest gives
	Dir   string            // empty: the user's home
	User  string            // name or number; empty: root
	Stdin bool              // false: /dev/null
	TTY   *TTY              // nil: three separate streams
}

// TTY asks for a terminal.
type TTY struct {
	Term       string // $TERM
	Rows, Cols int
}

func (s Start) wire() *wire.ExecStart {
	w := &wire.ExecStart{Argv: s.Argv, Env: s.Env, Cwd: s.Dir, User: s.User, Stdin: s.Stdin}
	if t := s.TTY; t != nil {
		w.Tty = &wire.Terminal{Term: t.Term, Size: windowSize(t.Rows, t.Cols)}
	}
	return w
}

func windowSize(rows, cols int) *wire.WindowSize {
	return &wire.WindowSize{Rows: uint32(max(0, rows)), Cols: uint32(max(0, cols))}
}

// Event is one thing that a [Command] has to tell: the field that is not zero.
type Event struct {
	Progress *api.Progress
	VM       *api.VM // the machine is ready
	Started  bool    // the command runs
	Stdout   []byte
	Stderr   []byte
	Exit     *Exit // the command has ended; no output comes after it
	Cleanup  *api.Cleanup
	Notice   string // the machine came to stand, or goes on: a line for people
}

// Exit tells how a command ended.
type Exit struct {
	Code  int    // as a shell gives it: 128+n for signal n, 126, 127
	Error string // why it could not be started; empty if it was
}

// A Command is one that runs in a machine. What is sent to it may be sent by
// several goroutines at once; one alone may receive. It ends when Receive
// returns an error, or with the context it was started with.
type Command struct {
	input
	recv func() (Event, error)
}

// input is what a command gets from our end.
type input struct {
	mu   sync.Mutex // one send at a time
	send func(*wire.ExecRequest) error
}

// Machine is what machine to make for a command.
type Machine struct {
	Spec      *api.Spec
	Ephemeral bool
	From      string // "boot" or "template"; empty: whatever is quickest
}

// Run makes a machine, starts it and runs a command in it. An ephemeral
// machine is deleted when the command ends, or ctx does. If ctx has a recorder
// ([trace.With]), what the daemon recorded is in it when there is nothing more to
// receive.
func (c *Client) Run(ctx context.Context, m Machine, s Start) (*Command, error) {
	stream := c.VM.Run(ctx)
	first := &api.RunStart{Spec: m.Spec, Ephemeral: m.Ephemeral, From: m.From, Command: s.wire(), Trace: trace.From(ctx) != nil}
	err := stream.Send(&api.RunRequest{Msg: &api.RunRequest_Start{Start: first}})
	if err != nil {
		return nil, notSent(err, stream)
	}
	return &Command{
		input: input{send: func(r *wire.ExecRequest) error {
			return stream.Send(&api.RunRequest{Msg: &api.RunRequest_Exec{Exec: r}})
		}},
		recv: func() (Event, error) {
			resp, err := stream.Receive()
			if err != nil {
				return Event{}, err
			}
			keepTrace(trace.From(ctx), resp.GetTrace())
			e := execEvent(resp.GetExec())
			e.Notice = resp.GetNotice()
			e.Progress, e.VM, e.Cleanup = resp.GetProgress(), resp.GetVm(), resp.GetCleanup()
			return e, nil
		},
	}, nil
}

// keepTrace keeps what the daemon recorded.
func keepTrace(r *trace.Recorder, t *api.Trace) {
	var stages []trace.Stage
	for _, s := range t.GetStages() {
		stages = append(stages, trace.Stage{Row: s.Row, Name: s.Name, Start: s.StartNs, Length: s.LengthNs})
	}
	r.Add(stages, int(t.GetDropped()))
}

// Exec runs a command in a machine that runs.
func (c *Client) Exec(ctx context.Context, vm string, s Start) (*Command, error) {
	stream := c.VM.Exec(ctx)
	first := &api.ExecIn{Vm: vm, Command: s.wire()}
	err := stream.Send(&api.ExecRequest{Msg: &api.ExecRequest_Start{Start: first}})
	if err != nil {
		return nil, notSent(err, stream)
	}
	return &Command{
		input: input{send: func(r *wire.ExecRequest) error {
			return stream.Send(&api.ExecRequest{Msg: &api.ExecRequest_Exec{Exec: r}})
		}},
		recv: func() (Event, error) {
			resp, err := stream.Receive()
			if err != nil {
				return Event{}, err
			}
			e := execEvent(resp.GetExec())
			e.Notice = resp.GetNotice()
			return e, nil
		},
	}, nil
}

// notSent tells why a call could not begin. At the end of the stream that comes
// with what is received. Any other error is the caller's own: a text that is no
// UTF-8 cannot be sent, and nobody would ever answer.
func notSent[Req, Resp any](err error, stream *connect.BidiStreamForClient[Req, Resp]) error {
	if errors.Is(err, io.EOF) {
		_, err = stream.Receive()
		return err
	}
	return errors.Join(notUTF8(err), stream.CloseRequest(), stream.CloseResponse())
}

func notUTF8(err error) error {
	return errkind.New(errkind.Usage, "the command cannot be sent as it is (is all of it UTF-8?): %w", err)
}

func execEvent(r *wire.ExecResponse) Event {
	e := Event{Started: r.GetStarted() != nil, Stdout: r.GetStdout(), Stderr: r.GetStderr()}
	if x := r.GetExit(); x != nil {
		e.Exit = &Exit{Code: int(x.Code), Error: x.Error}
	}
	return e
}

// Receive returns the next event. The error is [io.EOF] when there is none any
// more.
func (c *Command) Receive() (Event, error) { return c.recv() }

func (in *input) request(r *wire.ExecRequest) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.send(r)
}

// Write sends input. It blocks while the command does not read what was sent
// before. Why an error occurred, Receive tells.
func (in *input) Write(p []byte) (int, error) {
	if err := in.request(&wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: p}}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseStdin ends the command's input; its output goes on.
func (in *input) CloseStdin() error {
	return in.request(&wire.ExecRequest{Msg: &wire.ExecRequest_CloseStdin{CloseStdin: true}})
}

// Resize tells the command how large its terminal is now.
func (in *input) Resize(rows, cols int) error {
	return in.request(&wire.ExecRequest{Msg: &wire.ExecRequest_Resize{Resize: windowSize(rows, cols)}})
}

// Signal sends the command's process group a signal, by its name without SIG.
// It waits its turn behind input that the command does not read.
func (in *input) Signal(name string) error {
	return in.request(&wire.ExecRequest{Msg: &wire.ExecRequest_Signal{Signal: name}})
}
