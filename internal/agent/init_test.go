package agent

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeInit is a supervisor whose agent is a number.
type fakeInit struct {
	*supervisor
	started  int
	dead     []int                   // to be reaped
	fail     func(attempt int) error // of starting; nil: none fails
	attempt  int
	rebooted *bool
	warned   []string
}

func newFakeInit() *fakeInit {
	f := &fakeInit{}
	f.supervisor = &supervisor{
		start: func() (int, error) {
			f.attempt++
			if f.fail != nil && f.fail(f.attempt) != nil {
				return 0, f.fail(f.attempt)
			}
			f.started++
			return 100 + f.started, nil
		},
		wait: func() (int, error) {
			if len(f.dead) == 0 {
				return 0, nil
			}
			pid := f.dead[0]
			f.dead = f.dead[1:]
			return pid, nil
		},
		end:  func(reboot bool) { f.rebooted = &reboot },
		warn: func(s string) { f.warned = append(f.warned, s) },
	}
	return f
}

// drive runs the supervisor in a bubble of fake time while script plays.
func drive(t *testing.T, f *fakeInit, script func(children, requests chan os.Signal)) error {
	var err error
	synctest.Test(t, func(*testing.T) {
		children, requests := make(chan os.Signal, 1), make(chan os.Signal, 8)
		done := make(chan struct{})
		go func() {
			defer close(done)
			err = f.run(children, requests)
		}()
		synctest.Wait()
		script(children, requests)
		<-done
	})
	return err
}

func TestSupervisorRequests(t *testing.T) {
	for sig, reboot := range map[os.Signal]bool{
		syscall.SIGUSR1: false, syscall.SIGUSR2: false, syscall.SIGTERM: true, syscall.SIGINT: true,
	} {
		f := newFakeInit()
		if err := drive(t, f, func(_, requests chan os.Signal) { requests <- sig }); err != nil {
			t.Fatal(err)
		}
		if f.rebooted == nil || *f.rebooted != reboot {
			t.Errorf("%v: reboot %v, want %v", sig, f.rebooted, reboot)
		}
	}
}

// TestSupervisorRestarts: orphans are nothing to it, a dead agent is started
// again, later each time that it dies soon.
func TestSupervisorRestarts(t *testing.T) {
	f := newFakeInit()
	var after []int
	die := func(children chan os.Signal, wait time.Duration, pids ...int) {
		f.dead = append(f.dead, pids...)
		children <- syscall.SIGCHLD
		time.Sleep(wait) // fake time
		synctest.Wait()
		after = append(after, f.started)
	}
	err := drive(t, f, func(children, requests chan os.Signal) {
		die(children, time.Hour, 7, 8, 9)                    // orphans
		die(children, time.Nanosecond, 101)                  // after an hour: at once
		die(children, agentFirstDelay-time.Millisecond, 102) // at once again: not yet …
		die(children, time.Millisecond)                      // … but now
		die(children, agentFirstDelay, 103)
		die(children, agentFirstDelay, 5)
		requests <- syscall.SIGUSR2
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1, 2, 2, 3, 3, 4}, after); d != "" {
		t.Errorf("agents started by then: %s", d)
	}
	if len(f.warned) != 3 {
		t.Errorf("warned %q", f.warned)
	}
}

func TestSupervisorCannotStart(t *testing.T) {
	f := newFakeInit()
	noMemory := errors.New("no memory")
	f.fail = func(int) error { return noMemory }
	err := drive(t, f, func(_, _ chan os.Signal) {})
	if !errors.Is(err, noMemory) {
		t.Errorf("run = %v", err)
	}
	// Later it tries again.
	f = newFakeInit()
	f.fail = func(attempt int) error {
		if attempt == 2 {
			return noMemory
		}
		return nil
	}
	err = drive(t, f, func(children, requests chan os.Signal) {
		f.dead = []int{101}
		children <- syscall.SIGCHLD
		time.Sleep(2 * agentMaxDelay) // fake time
		synctest.Wait()
		requests <- syscall.SIGUSR2
	})
	if err != nil || f.started != 2 {
		t.Errorf("run = %v after %d starts, want 2; warned %q", err, f.started, f.warned)
	}
}

func TestNextDelay(t *testing.T) {
	for _, tt := range []struct{ last, lived, want time.Duration }{
		{0, 0, agentFirstDelay},
		{agentFirstDelay, time.Second, 2 * agentFirstDelay},
		{agentMaxDelay, time.Second, agentMaxDelay},
		{agentMaxDelay, agentSettled, 0},
	} {
		if got := nextDelay(tt.last, tt.lived); got != tt.want {
			t.Errorf("nextDelay(%v, %v) = %v, want %v", tt.last, tt.lived, got, tt.want)
		}
	}
}

func TestReapAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		children := make(chan os.Signal, 1)
		left := []int{5, 6, 0, 7} // 0: none has ended yet
		reap := func() (int, error) {
			if len(left) == 0 {
				return 0, syscall.ECHILD
			}
			pid := left[0]
			left = left[1:]
			return pid, nil
		}
		children <- syscall.SIGCHLD
		if !reapAll(children, time.Second, reap) || len(left) != 0 {
			t.Errorf("children %v were left", left)
		}
		start := time.Now()
		if reapAll(children, time.Second, func() (int, error) { return 0, nil }) {
			t.Error("a child that stays was reaped")
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestMountPoints(t *testing.T) {
	const info = `1 1 0:2 / / rw - rootfs rootfs rw
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:5 / /dev rw - devtmpfs devtmpfs rw
25 22 254:16 / /root rw - ext4 /dev/vdb rw
26 25 0:50 / /root/a\040b\134c rw master:2 - overlay overlay rw
garbage
27 22
`
	want := []string{"/", "/root", `/root/a b\c`}
	if d := cmp.Diff(want, mountPoints(strings.NewReader(info))); d != "" {
		t.Error(d)
	}
}

func TestMakeTmp(t *testing.T) {
	dir := t.TempDir() + "/tmp"
	for range 2 {
		if err := makeTmp(dir); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("mode %v (%v)", fi.Mode(), err)
		}
	}
}
