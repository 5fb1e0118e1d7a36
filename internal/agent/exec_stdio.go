package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"sync"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// stdio is the agent's side of a command's files.
type stdio struct {
	tty     *os.File // the terminal's master, or nil
	input   *os.File // nil: none is wanted. With a terminal, the same as tty
	outputs []output
	theirs  []*os.File // the command's side; closed once it has started

	inputOnce sync.Once
}

// An output is a file that a command writes, and the message for its data.
type output struct {
	f        *os.File
	response func([]byte) *wire.ExecResponse
}

func toStdout(b []byte) *wire.ExecResponse {
	return &wire.ExecResponse{Msg: &wire.ExecResponse_Stdout{Stdout: b}}
}

func toStderr(b []byte) *wire.ExecResponse {
	return &wire.ExecResponse{Msg: &wire.ExecResponse_Stderr{Stderr: b}}
}

// openStdio gives cmd its files. On an error none is left open.
func openStdio(cmd *exec.Cmd, start *wire.ExecStart) (s *stdio, err error) {
	s = &stdio{}
	defer func() {
		if err != nil {
			s.closeTheirs()
			s.close()
		}
	}()
	if start.GetTty() != nil {
		return s, s.openTerminal(cmd, start)
	}
	if start.GetStdin() {
		r, w, err := os.Pipe()
		if err != nil {
			return s, err
		}
		cmd.Stdin, s.input, s.theirs = r, w, append(s.theirs, r)
	}
	stdout, err := s.outputPipe(toStdout)
	if err != nil {
		return s, err
	}
	stderr, err := s.outputPipe(toStderr)
	if err != nil {
		return s, err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return s, nil
}

func (s *stdio) outputPipe(response func([]byte) *wire.ExecResponse) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.outputs = append(s.outputs, output{r, response})
	s.theirs = append(s.theirs, w)
	return w, nil
}

// openTerminal gives cmd a terminal of its own, that belongs to its user: the
// programs tmux and su open it again by its name.
func (s *stdio) openTerminal(cmd *exec.Cmd, start *wire.ExecStart) error {
	master, slave, err := pty.Open()
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	s.theirs = append(s.theirs, slave)
	// The library leaves the file in blocking mode, without deadlines.
	s.tty, err = pollable(master)
	if err := errors.Join(err, master.Close()); err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	s.outputs = []output{{s.tty, toStdout}}
	s.input = s.tty
	if c := cmd.SysProcAttr.Credential; c != nil {
		if err := slave.Chown(int(c.Uid), -1); err != nil {
			return err
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if size := start.GetTty().GetSize(); size != nil {
		return s.resize(size)
	}
	return nil
}

// pollable returns f once more, known to the runtime's poller.
func pollable(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := raw.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// resize tells the command how large its terminal is. Without one it does
// nothing: a client may send what it knows in any case.
func (s *stdio) resize(size *wire.WindowSize) error {
	if s.tty == nil {
		return nil
	}
	raw, err := s.tty.SyscallConn()
	if err != nil {
		return err
	}
	ws := &unix.Winsize{
		Row: uint16(min(size.GetRows(), math.MaxUint16)),
		Col: uint16(min(size.GetCols(), math.MaxUint16)),
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, ws) })
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// closeInput ends the command's input. A terminal stays open for output, so
// it is sent what a person would type.
func (s *stdio) closeInput() {
	s.inputOnce.Do(func() {
		switch {
		case s.input == nil:
		case s.input == s.tty:
			const endOfTransmission = 4
			s.tty.Write([]byte{endOfTransmission}) // the command may have gone
		default:
			s.input.Close()
		}
	})
}

// closeTheirs closes the command's side.
func (s *stdio) closeTheirs() {
	for _, f := range s.theirs {
		f.Close()
	}
	s.theirs = nil
}

// close closes the agent's side: writers in the background get EPIPE, those on
// a terminal SIGHUP. It may be called while others read and write.
func (s *stdio) close() {
	if s.input != nil {
		s.input.Close()
	}
	for _, o := range s.outputs {
		o.f.Close()
	}
}
