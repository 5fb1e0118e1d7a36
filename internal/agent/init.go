package agent

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How soon an agent that died is started again: at once if it lived for
// agentSettled, else after a time that doubles with every death.
const (
	agentSettled    = 10 * time.Second
	agentFirstDelay = 100 * time.Millisecond
	agentMaxDelay   = 5 * time.Second
)

// agentPath is where the agent looks for programs.
const agentPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// nofile is how many files a process of the guest may open: soft and hard.
// The kernel gives PID 1 1024 and 4096, which is too few for databases.
var nofile = syscall.Rlimit{Cur: 65536, Max: 524288}

// A supervisor is PID 1 of a guest whose image has no init. It starts the
// agent, starts it again when it dies, reaps what nobody else waits for, and
// ends the machine when asked to.
//
// It is asked by the signals that busybox's init takes, so that the poweroff
// and reboot of busybox, too, do what they say:
//
//	SIGUSR2, SIGUSR1   power off
//	SIGTERM, SIGINT    reboot (SIGINT is Ctrl-Alt-Delete)
type supervisor struct {
	start func() (pid int, err error) // the agent
	wait  func() (pid int, err error) // reaps one child; 0: none has ended
	end   func(reboot bool)
	warn  func(string)

	agent int       // 0: does not run
	born  time.Time // when it was started
	delay time.Duration
}

// runInit is PID 1 for the life of the guest, which with endByReboot reboots
// also where it is asked to power off. It returns only an error of getting
// there.
func runInit(endByReboot bool) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	// Apart, so that no crowd of dead children makes a request get lost.
	requests := make(chan os.Signal, 8)
	signal.Notify(requests, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT)

	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &nofile); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	// Ctrl-Alt-Delete becomes SIGINT instead of a reboot without sync.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return fmt.Errorf("take over Ctrl-Alt-Delete: %w", err)
	}
	if err := mountForContainers(); err != nil {
		return err
	}
	s := &supervisor{
		start: func() (int, error) { return startAgent(roleInit) },
		wait:  reapOne,
		end:   func(reboot bool) { shutDown(reboot || endByReboot, children) },
		warn:  say,
	}
	return s.run(children, requests)
}

// run runs until a request has come and been carried out. An agent that cannot
// be started at all, the first time, is an error.
func (s *supervisor) run(children, requests <-chan os.Signal) error {
	restart := time.NewTimer(0)
	<-restart.C
	if err := s.startAgent(); err != nil {
		return err
	}
	for {
		select {
		case sig := <-requests:
			s.end(sig == syscall.SIGTERM || sig == syscall.SIGINT)
			return nil
		case <-children:
			if s.reap() {
				restart.Reset(s.delay)
			}
		case <-restart.C:
			if err := s.startAgent(); err != nil {
				s.warn("warning: " + oneLine(err))
				s.delay = agentMaxDelay
				restart.Reset(s.delay)
			}
		}
	}
}

func (s *supervisor) startAgent() (err error) {
	s.agent, err = s.start()
	s.born = time.Now()
	return err
}

// reap reaps every child that has ended and reports whether the agent was one
// of them; delay is how long to wait then.
func (s *supervisor) reap() (agentDied bool) {
	for {
		pid, err := s.wait()
		if err != nil || pid == 0 {
			return agentDied
		}
		if pid == s.agent {
			s.agent, agentDied = 0, true
			s.delay = nextDelay(s.delay, time.Since(s.born))
			s.warn("warning: the agent died and is started again")
		}
	}
}

// nextDelay returns how long to wait before the agent is started again, after
// the delay before it and its life.
func nextDelay(last, lived time.Duration) time.Duration {
	if lived >= agentSettled {
		return 0
	}
	return min(max(2*last, agentFirstDelay), agentMaxDelay)
}

// startAgent starts this program again to serve. Its parent must not wait for
// it by other means than reapOne.
func startAgent(role string) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Its own executable, wherever that is: the initramfs is out of reach.
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"banger-agent", "serve", role}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"HOME=/root", "PATH=" + agentPath, "TERM=linux"},
		Files: []uintptr{null.Fd(), os.Stdout.Fd(), os.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start agent: %w", err)
	}
	return pid, nil
}

// reapOne takes the status of one child that has ended. In PID 1 alone: beside
// os/exec it would take away the exit codes of others.
func reapOne() (pid int, err error) {
	for {
		pid, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if !errors.Is(err, unix.EINTR) {
			return pid, err
		}
	}
}
