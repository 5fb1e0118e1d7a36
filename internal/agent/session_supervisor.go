package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

var supervisorArgs = []string{"banger-agent", "session"}

// readyFD is where a supervisor says how its session began.
const readyFD = 3

// A sessionSupervisor is the process that holds one session: it is the parent
// of its command, writes its logs and its status, and listens on its socket. It
// lives as long as the command does, whatever becomes of the agent.
type sessionSupervisor struct {
	spec  *sessionSpec
	logs  *sessiondir.Logs
	l     net.Listener
	files *stdio
	p     *process
	input *sessionInput

	mu       sync.Mutex
	status   sessiondir.Status
	stopping *stopOrder // nil: nobody wants it to end
	holder   *holder    // of the input; nil: nobody is attached
	rows     uint32     // of the terminal, as it was last asked for
	cols     uint32
}

// superviseSession is the supervisor's process. A spare one is given a directory
// where it may rehearse. It returns the exit code.
func superviseSession(spare []string) int {
	// The command must go with its supervisor, which the kernel ties to the
	// thread that started it (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	debug.SetGCPercent(gcPercent)
	_ = calmMonitor() // without, all takes longer
	// Whoever reads what we say may have gone; ignored it would be for the
	// command too.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE, unix.SIGHUP)
	ready := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	if len(spare) > 0 {
		os.WriteFile("/proc/self/comm", []byte("banger-spare"), 0)
		setPriority(idleNice)
		rehearse(spare[0])
		setPriority(0)
		_ = writeFrame(ready, frameOK, nil)
	}
	told, err := io.ReadAll(os.Stdin)
	if err != nil || len(told) == 0 {
		return 1 // the agent has gone, or needs no other session
	}
	os.WriteFile("/proc/self/comm", []byte("banger-session"), 0)
	s, err := beginSession(told)
	if err != nil {
		_ = writeFrame(ready, frameRefused, []byte(oneLine(err)))
		return 1
	}
	if data, err := json.Marshal(s.status); err == nil {
		_ = writeFrame(ready, frameOK, data) // who asked may have gone
	}
	ready.Close()
	go s.accept()
	s.run()
	return 0
}

// gcPercent keeps the heap at a quarter of what it would be (GOGC): there may be
// hundreds of supervisors in a guest, and each has little to do.
const gcPercent = 25

// rehearse does once what beginning a session takes, but for its command: what
// is done for the first time takes longest.
func rehearse(run string) {
	dir, err := os.MkdirTemp(run, "spare-")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	told, _ := json.Marshal(&sessionSpec{Dir: dir, Socket: dir + "/socket", Args: []string{""}, Env: []string{""}})
	s := &sessionSupervisor{}
	// An error is told when it counts.
	if s.prepare(told) != nil {
		return
	}
	s.status = s.begun()
	s.write()
	_, _ = json.Marshal(s.status)
	s.l.Close()
	_ = s.logs.Close()
}

// beginSession starts the session that is told.
func beginSession(told []byte) (*sessionSupervisor, error) {
	s := &sessionSupervisor{}
	if err := s.prepare(told); err != nil {
		return nil, err
	}
	if err := s.startCommand(); err != nil {
		s.l.Close()
		return nil, err
	}
	s.input = newSessionInput(s.files)
	s.status = s.begun()
	s.status.Command, s.status.StdinOpen = identify(s.p.pid), s.files.input != nil
	s.write()
	return s, nil
}

// prepare makes everything for the session that is told but its command.
func (s *sessionSupervisor) prepare(told []byte) (err error) {
	s.spec = &sessionSpec{}
	if err := json.Unmarshal(told, s.spec); err != nil {
		return err
	}
	if s.logs, err = sessiondir.CreateLogs(s.spec.Dir, sessiondir.LogOptions{LimitBytes: s.spec.LogLimit}); err != nil {
		return err
	}
	if err := sessiondir.Reserve(s.spec.Dir); err != nil {
		return err
	}
	s.l, err = net.Listen("unix", s.spec.Socket)
	return err
}

// begun is the status of a session that begins now.
func (s *sessionSupervisor) begun() sessiondir.Status {
	return sessiondir.Status{
		State: sessiondir.Running, BootID: bootID(), Supervisor: identify(os.Getpid()), StartedAt: time.Now(),
	}
}

// startCommand starts the session's command, which is killed with us.
func (s *sessionSupervisor) startCommand() (err error) {
	start := &wire.ExecStart{Stdin: s.spec.Stdin == stdinPipe}
	if s.spec.Stdin == stdinPTY {
		start.Tty = &wire.Terminal{Size: &wire.WindowSize{Rows: s.spec.Rows, Cols: s.spec.Cols}}
	}
	cmd := &exec.Cmd{
		Path: s.spec.Path, Args: s.spec.Args, Env: s.spec.Env, Dir: s.spec.Cwd,
		SysProcAttr: &syscall.SysProcAttr{Credential: s.spec.Credential, Pdeathsig: unix.SIGKILL},
	}
	if s.files, err = openStdio(cmd, start); err != nil {
		return err
	}
	s.p, err = newSpawner().start(cmd, s.files.tty)
	s.files.closeTheirs()
	if err != nil {
		s.files.close()
		return startFailure(s.spec.Args[0], err)
	}
	return nil
}

// run holds the session until its command has ended.
func (s *sessionSupervisor) run() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	go func() {
		<-asked // the guest's init ends every process
		s.stop(stopOrder{GraceNS: int64(machineGrace), Failure: machineStopped})
	}()
	streams := []sessiondir.Stream{sessiondir.Stdout, sessiondir.Stderr}
	var outputs sync.WaitGroup
	for i, o := range s.files.outputs {
		outputs.Go(func() {
			var g gatherer
			// What cannot be read is not there to be kept.
			_ = copyOutput(o.f, func(b []byte) error {
				s.logs.Write(streams[i], b)
				g.took(context.Background(), len(b))
				return nil
			})
		})
	}
	s.p.awaitEnd()
	s.awaitGroup()
	ws, err := s.p.wait()
	if ws.Signaled() && ws.Signal() == unix.SIGTERM && !s.isStopping() {
		// By an init that ends every process, of which ours hears too.
		_ = pause(context.Background(), initWord)
	}
	for _, o := range s.files.outputs {
		o.f.SetReadDeadline(time.Now().Add(linger))
	}
	outputs.Wait()
	s.files.close()
	if err := s.logs.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "session:", err) // what is missing, a mark tells
	}
	s.conclude(ws, err)
	os.Remove(s.spec.Socket)
}

func (s *sessionSupervisor) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping != nil
}

// initWord is what the signal of the guest's init gets to reach us, after it has
// reached the command.
const initWord = 50 * time.Millisecond

// conclude writes down how the session ended. Nothing is written after that.
func (s *sessionSupervisor) conclude(ws syscall.WaitStatus, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	exit := exitOf(ws)
	st := &s.status
	st.State, st.StdinOpen, st.EndedAt = sessiondir.Exited, false, time.Now()
	st.Code, st.Signal = int(exit.Code), exit.Signal
	switch {
	case s.stopping != nil && s.stopping.Failure != "":
		st.State, st.Stage, st.Message = sessiondir.Failed, stageRun, s.stopping.Failure
	case err != nil:
		st.State, st.Stage, st.Message = sessiondir.Failed, stageRun, oneLine(err)
	}
	s.write()
}

// write writes the status down; that it is on the disk is waited for when it is
// the last one. Preconditions: s.mu is held, or nobody else
// knows of s yet.
func (s *sessionSupervisor) write() {
	write := s.status.Write
	if !s.status.State.Final() {
		write = s.status.Replace
	}
	if err := write(s.spec.Dir); err != nil {
		fmt.Fprintln(os.Stderr, "session:", err) // the agent's log
	}
}

// change changes the status of a session that has not ended.
func (s *sessionSupervisor) change(f func(*sessiondir.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.status.State.Final() {
		f(&s.status)
		s.write()
	}
}
