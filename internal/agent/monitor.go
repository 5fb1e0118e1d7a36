package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// The Go runtime has a thread that looks, while there is anything to do, every 20
// microseconds whether a system call takes long, and then has another thread take
// over: its monitor, sysmon in runtime/proc.go. In emulation each look is an
// interrupt and two changes of threads, and every call takes long: a fourth of the
// time that the agent took to run a command went there.

// monitorSlack is how much later than it asked the monitor may be woken.
const monitorSlack = time.Millisecond

// calmMonitor gives the monitor of this process its slack. Threads that the
// monitor makes inherit it, see [spawner.begin].
func calmMonitor() error {
	tid, err := monitorThread()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/proc/%d/timerslack_ns", tid) // proc(5); there is none below task
	return os.WriteFile(name, strconv.AppendInt(nil, int64(monitorSlack), 10), 0)
}

// monitorThread returns the monitor's thread. Nothing tells which one that is, but
// that the runtime makes it before all others, and the kernel lists threads in the
// order in which they were made.
func monitorThread() (tid int, err error) {
	threads, err := ownThreads()
	if err != nil {
		return 0, err
	}
	if len(threads) <= monitorIndex {
		return 0, errors.New("the runtime has no monitor")
	}
	return threads[monitorIndex], nil
}

// monitorIndex is where the monitor is among a process's own threads.
const monitorIndex = 1

// ownThreads returns the threads that this process has now, the first one first.
func ownThreads() ([]int, error) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1) // as the kernel lists them
	if err != nil {
		return nil, fmt.Errorf("list own threads: %w", err)
	}
	threads := make([]int, 0, len(names))
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			threads = append(threads, tid)
		}
	}
	return threads, nil
}
