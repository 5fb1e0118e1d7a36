package agent

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts processes. The agent itself is the last that a guest short of
// memory should kill; its children are not. A child inherits that rank when it
// is forked and may have children of its own before anyone could change it, so
// the agent takes the ordinary rank for the moment of the fork.
type spawner struct {
	mu    *sync.Mutex
	rank  []byte  // the agent's own oom_score_adj; empty: the ordinary one
	slack uintptr // of a child's timers, in nanoseconds; 0: that of the thread that makes it
}

const rankFile = "/proc/self/oom_score_adj"

func newSpawner() spawner {
	rank, err := os.ReadFile(rankFile)
	if rank = bytes.TrimSpace(rank); err != nil || string(rank) == "0" {
		rank = nil
	}
	// That of the first thread: those that the monitor made have the monitor's.
	text, _ := os.ReadFile("/proc/self/timerslack_ns") // an old kernel has none
	slack, _ := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	return spawner{mu: new(sync.Mutex), rank: rank, slack: uintptr(slack)}
}

// start starts cmd in a process group of its own, or with a terminal, in a
// session. On an error there is no process.
func (s spawner) start(cmd *exec.Cmd, tty *os.File) (*process, error) {
	pidfd := -1
	cmd.SysProcAttr.PidFD = &pidfd
	if tty == nil {
		cmd.SysProcAttr.Setpgid = true
	} else {
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true // its descriptor 0
	}
	if err := s.fork(cmd); err != nil {
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, cmd: cmd, tty: tty}
	if pidfd >= 0 && unix.SetNonblock(pidfd, true) == nil {
		p.exit = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return p, nil
}

func (s spawner) fork(cmd *exec.Cmd) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rank != nil {
		// Best effort: a command with the wrong rank is better than none.
		os.WriteFile(rankFile, []byte("0"), 0)
		defer os.WriteFile(rankFile, s.rank, 0)
	}
	return s.begin(cmd)
}

// begin starts cmd, from a thread whose timers are as exact as a child's shall be.
func (s spawner) begin(cmd *exec.Cmd) error {
	if s.slack != 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, s.slack, 0, 0, 0) // no reason to start nothing
	}
	return cmd.Start()
}

// startApart starts cmd, which keeps the agent's own rank, so that it outlives
// the agent and is no child of its: where init is the agent's parent, it becomes
// the parent of cmd too.
func (s spawner) startApart(cmd *exec.Cmd) error {
	s.mu.Lock() // another fork may be changing the rank
	defer s.mu.Unlock()
	if os.Getppid() == 1 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_PARENT
		if err := s.begin(cmd); err != nil {
			return err
		}
		return cmd.Process.Release()
	}
	if err := s.begin(cmd); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // how it ended, it writes down
	return nil
}

// A process is one that we started and have not reaped, and its group.
type process struct {
	pid  int
	cmd  *exec.Cmd
	exit *os.File // readable when the process has ended; nil on an old kernel
	tty  *os.File // the agent's side of its terminal, or nil

	mu     sync.Mutex
	reaped bool // its number may be somebody else's
}

// wait waits until the process ends and reaps it, and no other. It keeps no
// thread waiting, of which Go has but 10,000.
func (p *process) wait() (syscall.WaitStatus, error) {
	p.awaitEnd()
	if p.exit != nil {
		defer p.exit.Close()
		p.mu.Lock()
		p.reaped = true
		p.mu.Unlock()
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		return 0, err
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus), nil
}

// awaitEnd waits until the process has ended, without reaping it: its number,
// and that of its group, stay its own. On a kernel without pidfds it returns at
// once.
func (p *process) awaitEnd() {
	if p.exit == nil {
		return
	}
	if raw, err := p.exit.SyscallConn(); err == nil {
		raw.Read(hasEnded) // an error leaves the waiting to Wait
	}
}

func hasEnded(pidfd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// kill ends the process group.
func (p *process) kill() { p.signal(unix.SIGKILL) }

// signal sends sig to the process group, and to the one that has the
// terminal, which under a shell is another. It does nothing after the process
// ended: what it left in the background is nobody's.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	groups := []int{p.pid}
	if p.tty != nil {
		if raw, err := p.tty.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) {
				if g, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && g > 1 && g != p.pid {
					groups = append(groups, g)
				}
			})
		}
	}
	for _, g := range groups {
		syscall.Kill(-g, sig) // ESRCH: it is just ending
	}
}
