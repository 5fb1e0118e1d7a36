package agent

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long processes may take to end: after being asked to, which is when a
// database writes what it has in memory, and after being killed. Together with
// diskEnd they stay below the time after which the daemon kills the VMM.
const (
	termGrace = 4 * time.Second
	killGrace = time.Second
	diskEnd   = 3 * time.Second
)

// shutDown ends every process, writes everything to the disks and then ends
// the machine, and returns only if it cannot. A disk that hangs does not keep it: after
// diskEnd the machine ends without.
func shutDown(reboot bool, children <-chan os.Signal) {
	// Errors mean that nobody was left to be told.
	_ = unix.Kill(-1, unix.SIGTERM)
	_ = unix.Kill(-1, unix.SIGCONT) // who is stopped cannot end
	if !reapAll(children, termGrace, reapOne) {
		_ = unix.Kill(-1, unix.SIGKILL)
		reapAll(children, killGrace, reapOne)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		unix.Sync()
		releaseDisks()
	}()
	select {
	case <-done:
	case <-time.After(diskEnd):
		say("warning: disks are slow; ending without them")
	}
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(how); err != nil {
		say("cannot end the machine: " + err.Error())
	}
}

// reapAll reaps until no child is left, which for PID 1 means no process at
// all: whoever loses its parent becomes its child. It reports whether that came
// within the limit.
func reapAll(children <-chan os.Signal, limit time.Duration, reap func() (int, error)) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		pid, err := reap()
		if errors.Is(err, syscall.ECHILD) {
			return true
		}
		if pid > 0 {
			continue
		}
		select {
		case <-children:
		case <-timeout.C:
			return false
		}
	}
}

// releaseDisks unmounts what can be unmounted, last mounted first, and makes
// what remains read-only, so that no file system has to replay its journal at
// its next mount. What fails was synced already.
func releaseDisks() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	points := mountPoints(f)
	f.Close()
	for _, p := range slices.Backward(points) {
		if unix.Unmount(p, unix.UMOUNT_NOFOLLOW) != nil {
			_ = unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
}

// mountPoints returns what stands in mountinfo (proc_pid_mountinfo(5)) and may
// hold data, in the order of mounting, the root included.
func mountPoints(r io.Reader) []string {
	var points []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		fsType, _, _ := strings.Cut(after, " ")
		if fsType == "proc" || fsType == "devtmpfs" || fsType == "rootfs" {
			continue // needed to the end, and in memory
		}
		points = append(points, unescape.Replace(fields[4]))
	}
	return points
}

// unescape undoes what the kernel does to the characters that separate fields.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
