package agent

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The thread that is taken for the runtime's monitor is the one that sleeps for
// moments while the process works, and it alone gets slack.
func TestMonitor(t *testing.T) {
	tid, err := monitorThread()
	must(t, err)
	const nanosleep = "35 "
	for deadline := time.Now().Add(10 * time.Second); ; { // busy, so that the monitor looks
		call, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		must(t, err)
		if strings.HasPrefix(string(call), nanosleep) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("thread %d never sleeps; it is in %s", tid, call)
		}
	}
	slack := func(tid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
		must(t, err)
		return strings.TrimSpace(string(text))
	}
	had := slack(os.Getpid())
	must(t, calmMonitor())
	if got := slack(tid); got != "1000000" {
		t.Errorf("the monitor's slack is %s ns, want a millisecond", got)
	}
	if got := slack(os.Getpid()); got != had {
		t.Errorf("the first thread's slack is %s ns, was %s", got, had)
	}

	// A thread with the monitor's slack, which it may have made, does not hand
	// it on.
	s := newSpawner()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(monitorSlack), 0, 0, 0))
	cmd := exec.Command("cat", "/proc/self/timerslack_ns")
	var out strings.Builder
	cmd.Stdout = &out
	must(t, s.begin(cmd))
	must(t, cmd.Wait())
	if got := strings.TrimSpace(out.String()); got != had {
		t.Errorf("a command's slack is %s ns, want %s", got, had)
	}
}
