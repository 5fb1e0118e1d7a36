package lab

import (
	"context"
	"errors"
	"fmt"
	"io"

	"banger/internal/guest/wire"
)

// A Command is run in the lab, as root.
type Command struct {
	Argv           []string
	Env            map[string]string
	Dir            string
	Stdin          io.Reader // nil: none
	Stdout, Stderr io.Writer // nil: dropped
	Terminal       *wire.Terminal
	Resized        <-chan *wire.WindowSize // nil: never
}

// Run runs a command and returns its exit code. Output is written as it comes.
// When ctx ends, or the lab, so does the command, and that is the error.
func (l *Lab) Run(ctx context.Context, c Command) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := l.Exec(ctx)
	defer st.CloseResponse()
	err = st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{
		Argv: c.Argv, Env: c.Env, Cwd: c.Dir, Stdin: c.Stdin != nil, Tty: c.Terminal,
	}}})
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("run %q in the lab: %w", c.Argv, err)
	}
	in := make(chan *wire.ExecRequest)
	go func() {
		for {
			select {
			case r := <-in:
				if st.Send(r) != nil {
					return // the end of the stream says why
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	send := func(r *wire.ExecRequest) bool {
		select {
		case in <- r:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if c.Stdin != nil {
		go feed(c.Stdin, send)
	}
	go func() {
		for size := range c.Resized {
			send(&wire.ExecRequest{Msg: &wire.ExecRequest_Resize{Resize: size}})
		}
	}()
	for {
		resp, err := st.Receive()
		if l.still.Load() {
			err = errStill
		}
		if err != nil {
			return 0, fmt.Errorf("run %q in the lab: %w", c.Argv, err)
		}
		switch m := resp.GetMsg().(type) {
		case *wire.ExecResponse_Stdout:
			err = write(c.Stdout, m.Stdout)
		case *wire.ExecResponse_Stderr:
			err = write(c.Stderr, m.Stderr)
		case *wire.ExecResponse_Exit:
			if m.Exit.GetError() != "" {
				return int(m.Exit.GetCode()), fmt.Errorf("run %q in the lab: %s", c.Argv, m.Exit.GetError())
			}
			return int(m.Exit.GetCode()), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// errStill says that nothing that ran in the lab is to blame.
var errStill = errors.New("the lab came to a stop")

func feed(r io.Reader, send func(*wire.ExecRequest) bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && !send(&wire.ExecRequest{Msg: &wire.ExecRequest_Stdin{Stdin: append([]byte(nil), buf[:n]...)}}) {
			return
		}
		if err != nil {
			send(&wire.ExecRequest{Msg: &wire.ExecRequest_CloseStdin{CloseStdin: true}})
			return
		}
	}
}

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}
