package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

const (
	// answerTime is what the answer to Power gets to leave before the machine
	// begins to go. An init may end us within milliseconds.
	answerTime = 20 * time.Millisecond
	// initTime is what an orderly shutdown gets. It is less than the grace
	// time of the daemon (10 s as it comes), which pulls the plug after that:
	// a machine that hangs is better ended from here, with clean disks.
	initTime = 6 * time.Second
)

// powerOnce lets the first of several calls end the machine.
type powerOnce struct{ once sync.Once }

// Power implements the method of the protocol. Sessions have ended, and what was
// written before is on the disks, when it is answered, whatever becomes of the
// shutdown.
func (s service) Power(_ context.Context, req *connect.Request[wire.PowerRequest]) (*connect.Response[wire.PowerResponse], error) {
	var reboot bool
	switch req.Msg.GetAction() {
	case wire.PowerRequest_ACTION_POWER_OFF:
	case wire.PowerRequest_ACTION_REBOOT:
		reboot = true
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("power without an action"))
	}
	s.o.Log.Info("machine ends", "reboot", reboot)
	s.sessions.endAll()
	s.o.Sync()
	s.power.once.Do(func() { time.AfterFunc(s.o.AnswerTime, func() { s.o.Power(reboot) }) })
	return connect.NewResponse(&wire.PowerResponse{}), nil
}

// endMachine returns what ends the machine: the init's own orderly shutdown,
// so that services (a database, say) get their SIGTERM and file systems are
// unmounted; and if that is not done in time, disks released as well as can be
// and reboot(2).
func endMachine(log *slog.Logger) func(reboot bool) {
	return func(reboot bool) {
		sig := initSignal(reboot, systemdRuns())
		if err := syscall.Kill(1, sig); err != nil {
			log.Error("signal init", "signal", int(sig), "err", err)
		} else if pause(context.Background(), initTime) == nil {
			log.Warn("init does not end the machine", "after", initTime)
		}
		unix.Sync()
		releaseDisks()
		cmd := unix.LINUX_REBOOT_CMD_POWER_OFF
		if reboot {
			cmd = unix.LINUX_REBOOT_CMD_RESTART
		}
		if err := unix.Reboot(cmd); err != nil {
			log.Error("end machine", "err", err)
		}
	}
}

// systemdRuns reports whether PID 1 is systemd, the way that sd_booted(3) does;
// a unit directory alone proves nothing, for our own boot makes one.
func systemdRuns() bool {
	comm, err := os.ReadFile("/proc/1/comm")
	_, serr := os.Stat("/run/systemd/system")
	return err == nil && serr == nil && strings.TrimSpace(string(comm)) == "systemd"
}

// initSignal is what asks an init to end the machine. Systemd has signals of
// its own (systemd(1): SIGRTMIN+4 starts poweroff.target, +5 reboot.target;
// the C library's SIGRTMIN is 34). Every other one is asked the way of
// busybox's init, which ours follows.
func initSignal(reboot, systemd bool) syscall.Signal {
	switch {
	case systemd && reboot:
		return 34 + 5
	case systemd:
		return 34 + 4
	case reboot:
		return syscall.SIGTERM
	default:
		return syscall.SIGUSR2
	}
}
