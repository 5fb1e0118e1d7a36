package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// linger is what a command's output gets to end after the command has. Output
// ends when the last process that holds it lets go: at once, mostly. A child
// that the command left in the background may hold it for ever, and must not
// make the command seem to run. What it writes until then is passed on, as is
// all that stands in the pipe; then its output is closed.
const linger = 250 * time.Millisecond

// An execStream is the stream of whoever runs a command.
type execStream interface {
	Receive() (*wire.ExecRequest, error)
	Send(*wire.ExecResponse) error
}

// Exec implements the method of the protocol.
func (s service) Exec(ctx context.Context, st *connect.BidiStream[wire.ExecRequest, wire.ExecResponse]) error {
	return s.exec(ctx, st)
}

func (s *Server) exec(ctx context.Context, st execStream) error {
	first, err := st.Receive()
	if err != nil {
		return orInvalid(err, "exec without a command")
	}
	start := first.GetStart()
	if len(start.GetArgv()) == 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("exec without a command"))
	}
	if start.Wake != nil {
		if err := s.wake(start.Wake); err != nil {
			return err
		}
	}
	cmd, err := s.command(start)
	if err != nil {
		return refuse(st, err)
	}
	files, err := openStdio(cmd, start)
	if err != nil {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	defer files.close()
	p, err := s.spawn.start(cmd, files.tty)
	files.closeTheirs()
	if err != nil {
		return refuse(st, startFailure(start.GetArgv()[0], err))
	}
	x := &execution{st: st, p: p, files: files}
	return x.run(ctx)
}

// refuse tells that a command could not be started.
func refuse(st execStream, err error) error {
	exit := &wire.ExecExit{Code: codeNotExecutable, Error: err.Error()}
	var f *startError
	if errors.As(err, &f) {
		exit.Code = f.code
	}
	return st.Send(&wire.ExecResponse{Msg: &wire.ExecResponse_Exit{Exit: exit}})
}

// An execution is one command that runs, and the stream of whoever runs it.
type execution struct {
	p     *process
	files *stdio

	mu sync.Mutex // one Send at a time
	st execStream
}

// run carries input and output until the command has ended. A stream that
// breaks takes the command's process group with it.
func (x *execution) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, x.p.kill)
	if err := x.send(&wire.ExecResponse{Msg: &wire.ExecResponse_Started{Started: &wire.ExecStarted{Pid: int32(x.p.pid)}}}); err != nil {
		cancel(err)
	}
	input := make(chan []byte, 4)
	go x.feed(input)
	go func() {
		if err := x.receive(ctx, input); err != nil {
			cancel(err)
		}
	}()
	var outputs sync.WaitGroup
	for _, o := range x.files.outputs {
		outputs.Go(func() {
			if err := copyOutput(o.f, func(b []byte) error { return x.send(o.response(b)) }); err != nil {
				cancel(err)
			}
		})
	}
	status, err := x.p.wait()
	if err != nil {
		cancel(err)
	}
	for _, o := range x.files.outputs {
		o.f.SetReadDeadline(time.Now().Add(linger))
	}
	outputs.Wait()
	stop()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return x.send(&wire.ExecResponse{Msg: &wire.ExecResponse_Exit{Exit: exitOf(status)}})
}

func (x *execution) send(r *wire.ExecResponse) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.st.Send(r)
}

// exitOf tells how a process ended.
func exitOf(ws syscall.WaitStatus) *wire.ExecExit {
	if !ws.Signaled() {
		return &wire.ExecExit{Code: int32(ws.ExitStatus())}
	}
	name := strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
	if name == "" { // real-time signals have none
		name = fmt.Sprint(int(ws.Signal()))
	}
	return &wire.ExecExit{Code: 128 + int32(ws.Signal()), Signal: name}
}

// receive handles what the client sends until it has no more, and returns nil
// then. Input goes through a channel, so that a command which does not read
// it can still be signalled.
func (x *execution) receive(ctx context.Context, input chan<- []byte) error {
	defer close(input)
	open := true // input may still come
	for {
		req, err := x.st.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := req.GetMsg().(type) {
		case *wire.ExecRequest_Stdin:
			if open && len(m.Stdin) > 0 {
				select {
				case input <- m.Stdin:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		case *wire.ExecRequest_CloseStdin:
			if open {
				open = false
				select {
				case input <- nil:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		case *wire.ExecRequest_Resize:
			err = x.files.resize(m.Resize)
		case *wire.ExecRequest_Signal:
			err = x.signal(m.Signal)
		default:
			err = connect.NewError(connect.CodeInvalidArgument, errors.New("exec with two commands"))
		}
		if err != nil {
			return err
		}
	}
}

// feed writes the command's input; nil, or the channel's end, is its end. What
// comes when the command takes no more is dropped: whether that matters, the
// command's exit code tells.
func (x *execution) feed(input <-chan []byte) {
	in := x.files.input
	for b := range input {
		if b == nil {
			break
		}
		if in == nil {
			continue
		}
		if _, err := in.Write(b); err != nil {
			break
		}
	}
	x.files.closeInput()
	for range input { // the client may go on sending, and must not be held up
	}
}

func (x *execution) signal(name string) error {
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("no signal %q", name))
	}
	x.p.signal(sig)
	return nil
}

// copyOutput sends what f gives until its end, or until its read deadline and
// what then stands in it.
func copyOutput(f *os.File, send func([]byte) error) error {
	buf := make([]byte, 4<<10) // enough for most of hundreds of commands
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if n == len(buf) && n < chunk {
			buf = make([]byte, chunk)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, unix.EIO): // EIO: nobody has the terminal open
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return copyRest(f, buf, send)
		default:
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// maxRest is the most that a pipe holds, by the kernel's default limit; a
// background child that goes on writing is cut off there.
const maxRest = 1 << 20

// copyRest sends what f holds now. A file whose deadline has passed gives
// nothing, so the read goes around that.
func copyRest(f *os.File, buf []byte, send func([]byte) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for total := 0; total < maxRest; {
		n := 0
		if err := raw.Control(func(fd uintptr) { n, _ = readFD(fd, buf) }); err != nil {
			return err
		}
		if n == 0 {
			return nil // empty, or at its end
		}
		if err := send(buf[:n]); err != nil {
			return err
		}
		total += n
	}
	return nil
}
