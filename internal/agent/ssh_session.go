package agent

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// sshHangUp is how long a command has after its client has gone: a shell may
// have a history to write.
const sshHangUp = time.Second

// An sshSession is one command, shell or subsystem, and what was said about it
// before. Its requests are handled by one goroutine.
type sshSession struct {
	*sshLogin
	ch  ssh.Channel
	env map[string]string
	tty *wire.Terminal // nil: three streams

	// Non-nil once the command has started.
	p     *process
	files *stdio
	ended chan struct{} // closed when the command has ended and its output is out
}

// session serves a session channel to its end.
func (l *sshLogin) session(nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	s := &sshSession{sshLogin: l, ch: ch, env: make(map[string]string)}
	for r := range requests {
		ok, then := s.request(r.Type, r.Payload)
		if r.WantReply {
			r.Reply(ok, nil) // a client that has gone shows in the next
		}
		if then != nil {
			// After the reply, which must not come behind the exit status.
			s.ended = make(chan struct{})
			go then()
		}
	}
	s.hangUp()
}

// request handles one request, and returns what is to be done once the client
// has its answer.
func (s *sshSession) request(kind string, payload []byte) (ok bool, then func()) {
	var err error
	switch kind {
	case "pty-req":
		if s.ended != nil || s.tty != nil {
			return false, nil
		}
		s.tty, err = parsePTY(payload)
		return err == nil, nil
	case "env":
		name, value, ok := parseEnv(payload)
		if ok = ok && s.ended == nil && len(s.env) < maxSSHEnv; ok {
			s.env[name] = value
		}
		return ok, nil
	case "shell", "exec", "subsystem":
		if s.ended != nil {
			return false, nil
		}
		return s.begin(kind, payload)
	}
	return s.p != nil && s.control(kind, payload), nil
}

// control handles a request about the command that runs.
func (s *sshSession) control(kind string, payload []byte) bool {
	switch kind {
	case "window-change":
		var r sizeRequest
		if ssh.Unmarshal(payload, &r) != nil {
			return false
		}
		return s.files.resize(&wire.WindowSize{Rows: r.Rows, Cols: r.Cols}) == nil
	case "signal":
		var r nameRequest
		if ssh.Unmarshal(payload, &r) != nil {
			return false
		}
		sig := unix.SignalNum("SIG" + r.Name)
		if sig != 0 {
			s.p.signal(sig)
		}
		return sig != 0
	case "eow@openssh.com":
		// Nobody reads the output any more: whoever writes it is to get
		// SIGPIPE. The error output may have a reader still.
		if s.tty == nil {
			s.files.outputs[0].f.Close()
		}
		return true
	}
	return false
}

// begin starts what is asked for. What cannot be started is told as a shell
// tells it.
func (s *sshSession) begin(kind string, payload []byte) (ok bool, then func()) {
	start, args, err := s.program(kind, payload)
	if err != nil {
		return false, nil
	}
	start.Env, start.Tty = s.env, s.tty
	// What tells programs that they run under SSH; there are no addresses.
	s.env["SSH_CLIENT"], s.env["SSH_CONNECTION"] = "127.0.0.1 0 22", "127.0.0.1 0 127.0.0.1 22"
	cmd, err := s.s.command(start)
	if err != nil {
		return true, func() { s.notStarted(err) }
	}
	cmd.Args = args
	files, err := openStdio(cmd, start)
	if err != nil {
		return false, nil
	}
	p, err := s.s.spawn.start(cmd, files.tty)
	files.closeTheirs()
	if err != nil {
		files.close()
		return true, func() { s.notStarted(startFailure(args[0], err)) }
	}
	s.p, s.files = p, files
	return true, s.run
}

// program returns what a request is to run, and what it is to find as its
// arguments.
func (s *sshSession) program(kind string, payload []byte) (start *wire.ExecStart, args []string, err error) {
	shell := s.user.shell
	switch kind {
	case "shell":
		start = s.start(shell)
		return start, []string{"-" + filepath.Base(shell)}, nil // of a login, by custom
	case "exec":
		var r execRequest
		if err := ssh.Unmarshal(payload, &r); err != nil {
			return nil, nil, err
		}
		start = s.start(shell, "-c", r.Command)
		return start, start.Argv, nil
	}
	var r nameRequest
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return nil, nil, err
	}
	if r.Name != "sftp" {
		return nil, nil, errors.New("no such subsystem")
	}
	return s.start(selfProgram), sftpArgs, nil
}

// run carries input and output until the command has ended, and tells how it
// did.
func (s *sshSession) run() {
	defer close(s.ended)
	defer s.files.close()
	go s.feed()
	var outputs sync.WaitGroup
	for i, o := range s.files.outputs {
		w := []io.Writer{s.ch, s.ch.Stderr()}[i]
		outputs.Go(func() {
			err := copyOutput(o.f, func(b []byte) error { _, err := w.Write(b); return err })
			if err != nil && !errors.Is(err, os.ErrClosed) {
				s.ch.Close() // the session ends, and the command with it
			}
		})
	}
	status, err := s.p.wait()
	for _, o := range s.files.outputs {
		o.f.SetReadDeadline(time.Now().Add(linger)) // closed by now, perhaps
	}
	outputs.Wait()
	if err != nil {
		s.s.o.Log.Error("wait for an SSH command", "err", err)
		s.ch.Close()
		return
	}
	s.exit(exitOf(status))
}

// feed writes the command's input. What comes when it takes no more is
// dropped; it must not hold up the end.
func (s *sshSession) feed() {
	io.Copy(s.files.input, s.ch)
	s.files.closeInput()
	io.Copy(io.Discard, s.ch)
}

func (s *sshSession) notStarted(err error) {
	defer close(s.ended)
	exit := &wire.ExecExit{Code: codeNotExecutable}
	var f *startError
	if errors.As(err, &f) {
		exit.Code = f.code
	}
	io.WriteString(s.ch.Stderr(), err.Error()+"\n")
	s.exit(exit)
}

// sshSignals are those that RFC 4254, 6.10, has names for.
var sshSignals = []string{"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"}

// exit tells how the command ended, and ends the session. Errors are those of
// a client that has gone.
//
// OpenSSH's client ends with 255, as if the connection had failed, when it is
// told of a signal and nothing else. So it is told of the exit code, too.
func (s *sshSession) exit(x *wire.ExecExit) {
	s.ch.CloseWrite()
	if x.Signal != "" {
		name := x.Signal
		if !slices.Contains(sshSignals, name) {
			name += "@openssh.com"
		}
		s.ch.SendRequest("exit-signal", false, ssh.Marshal(exitSignal{Signal: name}))
	}
	s.ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{uint32(x.Code)}))
	s.ch.Close()
}

// hangUp ends what still runs when the client has gone, and waits for it.
func (s *sshSession) hangUp() {
	if s.ended == nil {
		s.ch.Close()
		return
	}
	if s.p != nil {
		s.p.signal(syscall.SIGHUP)
		kill := time.AfterFunc(sshHangUp, s.p.kill)
		defer kill.Stop()
	}
	<-s.ended
}
