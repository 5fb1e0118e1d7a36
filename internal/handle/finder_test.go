package handle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"

	"golang.org/x/sys/unix"
)

var _ vmm.Finder = (*Finder)(nil)

func mustFind(t *testing.T, f *Finder, s vmm.Signature, h Handle, pid int) (vmm.Process, Handle) {
	t.Helper()
	p, got, err := f.FindHint(t.Context(), s, h)
	if err != nil {
		t.Fatalf("FindHint: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	if p.PID() != pid || got.PID != pid || p.StartTime() == 0 || got.StartTime != p.StartTime() {
		t.Fatalf("FindHint gives process %d started %d and handle %+v, want process %d", p.PID(), p.StartTime(), got, pid)
	}
	return p, got
}

func mustNotFind(t *testing.T, f *Finder, s vmm.Signature, h Handle) {
	t.Helper()
	p, got, err := f.FindHint(t.Context(), s, h)
	if !errors.Is(err, vmm.ErrNoProcess) {
		t.Fatalf("FindHint gives %v, %v", p, err)
	}
	if got != h {
		t.Errorf("FindHint made %+v of %+v", got, h)
	}
}

func TestFind(t *testing.T) {
	s := signature(t)
	var f Finder
	mustNotFind(t, &f, s, Handle{})
	cmd := startVMM(t, "live", s)
	mustFind(t, &f, s, Handle{}, cmd.Process.Pid)
	mustFind(t, &f, s, Handle{}, cmd.Process.Pid) // where it was found before
}

func TestFindPrefersTheProcessTableToTheFile(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	file := Handle{PID: os.Getpid(), StartTime: 1, TapDevice: "bgr-3f"}
	_, h := mustFind(t, new(Finder), s, file, cmd.Process.Pid)
	if h.TapDevice != file.TapDevice {
		t.Errorf("the rest of the handle became %+v", h)
	}

	// Even if the file names a living process of the same executable, and
	// when it started.
	other := startVMM(t, "live", signature(t))
	i, err := look(other.Process.Pid, s.UID)
	if err != nil {
		t.Fatal(err)
	}
	mustFind(t, new(Finder), s, Handle{PID: other.Process.Pid, StartTime: i.start}, cmd.Process.Pid)
}

func TestFindReturnsTheFilesContentsWhenTheProcessIsDead(t *testing.T) {
	s := signature(t)
	path := filepath.Join(t.TempDir(), "handles.json")
	c := NewCache(func(vm.ID) string { return path })
	cmd := startVMM(t, "live", s)
	_, h := mustFind(t, new(Finder), s, Handle{DMName: "banger-x", BaseLoop: "/dev/loop3"}, cmd.Process.Pid)
	if err := c.Update("0123abcd", func(to *Handle) { *to = h }); err != nil {
		t.Fatal(err)
	}
	end(t, cmd)

	fresh := NewCache(c.pathOf)
	h, why := fresh.Load("0123abcd")
	if why != "" || h.DMName != "banger-x" || h.BaseLoop != "/dev/loop3" || h.PID != cmd.Process.Pid {
		t.Fatalf("Load gives %+v, %q", h, why)
	}
	mustNotFind(t, new(Finder), s, h) // which checks that h comes back
	if fresh.Get("0123abcd") != h {
		t.Error("the cache forgot it")
	}
}

func TestFindNotAZombie(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	var f Finder
	_, h := mustFind(t, &f, s, Handle{}, cmd.Process.Pid)
	end(t, cmd)
	mustNotFind(t, &f, s, h)
	mustNotFind(t, new(Finder), s, h)
	if len(f.last) != 0 {
		t.Errorf("the finder still remembers %v", f.last)
	}
}

// Somebody's curl may name the same socket.
func TestFindNotAnImpostor(t *testing.T) {
	s := signature(t)
	cmd := exec.Command("sh", "-c", "echo ready; read x", "sh", s.Arg, s.Next)
	run(t, cmd)
	mustNotFind(t, new(Finder), s, Handle{})
	mustNotFind(t, new(Finder), s, Handle{PID: cmd.Process.Pid})
}

func TestFindNotByASingleArgument(t *testing.T) {
	s := signature(t)
	file, _ := self(t)
	start(t, file, "live", s.Next, s.Arg)
	start(t, file, "live", s.Arg+" "+s.Next)
	start(t, file, "live", s.Arg, s.Next+".old")
	start(t, file, "live", s.Arg)
	mustNotFind(t, new(Finder), s, Handle{})
}

func TestFindNotOfAnotherUser(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	_, h := mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
	s.UID += 100000
	mustNotFind(t, new(Finder), s, h)
}

func TestFindNotARecycledPID(t *testing.T) {
	// A living process of the same executable and user stands at the pid that
	// the file tells, but started at another time.
	other := startVMM(t, "live", signature(t))
	mustNotFind(t, new(Finder), signature(t), Handle{PID: other.Process.Pid, StartTime: 1})
	mustNotFind(t, new(Finder), signature(t), Handle{PID: other.Process.Pid})
}

func TestFindWhoseFileWasRemoved(t *testing.T) {
	file, _ := self(t)
	vmmFile := filepath.Join(t.TempDir(), "qemu-system")
	if err := copyFile(file, vmmFile); err != nil {
		t.Fatal(err)
	}
	s := signature(t)
	s.Exe = "qemu-system"
	cmd := start(t, vmmFile, "live", s.Arg, s.Next)
	if err := os.Remove(vmmFile); err != nil {
		t.Fatal(err)
	}
	mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
}

// An upgrade makes the link by which a VMM was started point elsewhere, and may
// remove the file that runs. An earlier release of ours followed the link first.
func TestFindAfterAnUpgrade(t *testing.T) {
	file, _ := self(t)
	for _, tt := range []struct{ name, executed string }{
		{"build-17", "vmm"},
		{"vmm-v1.12.1-x86_64", "vmm"},
		{"vmm-v1.12.1-x86_64", "vmm-v1.12.1-x86_64"},
	} {
		dir := t.TempDir()
		old, link := filepath.Join(dir, tt.name), filepath.Join(dir, "vmm")
		if err := errors.Join(os.Symlink(file, old+".new"), copyFile(file, old), os.Symlink(old, link)); err != nil {
			t.Fatal(err)
		}
		s := signature(t)
		s.Exe = "vmm"
		cmd := start(t, filepath.Join(dir, tt.executed), "live", s.Arg, s.Next)
		_, h := mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
		if err := os.Rename(old+".new", link); err != nil {
			t.Fatal(err)
		}
		mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
		if err := os.Remove(old); err != nil {
			t.Fatal(err)
		}
		mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
		mustFind(t, new(Finder), s, h, cmd.Process.Pid)
		s.Exe = "vm"
		mustNotFind(t, new(Finder), s, Handle{})
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// A process whose first thread has ended shows no command line and calls
// itself a zombie, as one does that was killed and still closes its files; but
// it is there. Only the file, or a user that no other process has, tells whose
// it is.
func TestFindThatIsEnding(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "leaderless", s)
	awaitEnding(t, cmd.Process.Pid)
	i, err := look(cmd.Process.Pid, s.UID)
	if err != nil {
		t.Fatal(err)
	}
	h := Handle{PID: cmd.Process.Pid, StartTime: i.start}
	mustNotFind(t, new(Finder), s, Handle{PID: h.PID, StartTime: h.StartTime + 1})
	p, _ := mustFind(t, new(Finder), s, h, cmd.Process.Pid)
	if err := p.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	mustNotFind(t, new(Finder), s, h)
}

func TestFindThatIsEndingByItsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("starting a process as another user takes root")
	}
	s := signature(t)
	s.UID = 0x6266ffff
	dir := t.TempDir()
	chmodUp(t, dir)
	file, _ := self(t)
	s.Exe = "a-name-that-is-longer-than-a-comm"
	vmmFile := filepath.Join(dir, s.Exe)
	if err := copyFile(file, vmmFile); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(vmmFile, s.Arg, s.Next)
	cmd.Env = append(os.Environ(), helperEnv+"=leaderless")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.UID, Gid: s.UID}}
	run(t, cmd)
	awaitEnding(t, cmd.Process.Pid)
	mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
	s.Exe = "another-name"
	mustNotFind(t, new(Finder), s, Handle{})
}

// chmodUp lets every user reach dir, which t.TempDir made for root alone.
func chmodUp(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitEnding waits until a process has lost its executable.
func awaitEnding(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		if _, err := os.Readlink(procPath(pid, "exe")); errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("its first thread does not end")
		}
	}
}

func TestKill(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	p, _ := mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // now not even a zombie is left
	if err := p.Kill(t.Context()); err != nil {
		t.Errorf("Kill of what is gone: %v", err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Errorf("Wait for what is gone: %v", err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := p.Wait(t.Context()); err == nil {
		t.Error("Wait after Close succeeds")
	}
}

// What got a processor when nobody else wanted it is as others then, every thread.
func TestEndIdle(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	p, _ := mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)
	defer p.Close()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID()))
	if err != nil || len(threads) < 2 {
		t.Fatalf("it has threads %q (%v)", threads, err)
	}
	for _, path := range threads {
		tid, _ := strconv.Atoi(filepath.Base(path))
		if err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := p.EndIdle(); errors.Is(err, unix.EPERM) {
			t.Skip("may not end it")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range threads {
		tid, _ := strconv.Atoi(filepath.Base(path))
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil && attr.Policy != unix.SCHED_NORMAL {
			t.Errorf("thread %d has policy %d", tid, attr.Policy)
		}
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := p.EndIdle(); err == nil {
		t.Error("EndIdle of what is gone succeeded")
	}
}

// A VMM that an earlier daemon started is no child of ours.
func TestKillNoChild(t *testing.T) {
	s := signature(t)
	file, _ := self(t)
	// The shell ends at once; its child lives until its input ends.
	in, inEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inEnd.Close()
	cmd := exec.Command("sh", "-c", `"$0" "$@" <&3 & echo $!`, file, s.Arg, s.Next)
	cmd.Env = append(os.Environ(), helperEnv+"=live")
	cmd.ExtraFiles = []*os.File{in}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	// The pid and "ready", in either order.
	lines := bufio.NewReader(out)
	for range 2 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	p, err := new(Finder).Find(t.Context(), s, vmm.Hint{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	mustNotFind(t, new(Finder), s, Handle{})
}

// pidfds counts the descriptors of processes that this one has.
func pidfds(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// One that was closed meanwhile leads nowhere.
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(to, "pidfd") {
			n++
		}
	}
	return n
}

func TestWait(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	p, _ := mustFind(t, new(Finder), s, Handle{}, cmd.Process.Pid)

	gone := make(chan error, 1)
	before := pidfds(t)
	go func() { gone <- p.Wait(context.Background()) }()
	for deadline := time.Now().Add(10 * time.Second); pidfds(t) == before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("Wait does not begin")
		}
	}
	// One caller's context ends its own wait and no other's.
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := p.Wait(ctx); !errors.Is(err, why) {
				t.Errorf("Wait gives %v, want the context's cause", err)
			}
		})
	}
	cancel(why)
	wg.Wait()
	select {
	case err := <-gone:
		t.Fatalf("the process lives, and Wait gives %v", err)
	default:
	}
	if err := p.Kill(ctx); !errors.Is(err, why) && err != nil {
		t.Errorf("Kill gives %v", err)
	}
	p.Close() // does not disturb a wait that has begun
	if err := <-gone; err != nil {
		t.Errorf("Wait gives %v", err)
	}
	if err := p.Kill(t.Context()); err == nil {
		t.Error("Kill after Close succeeds")
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(Finder).Find(ctx, signature(t), vmm.Hint{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Find gives %v", err)
	}
}

func TestFindConcurrently(t *testing.T) {
	s := signature(t)
	cmd := startVMM(t, "live", s)
	var f Finder
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				p, err := f.Find(t.Context(), s, vmm.Hint{})
				if err != nil || p.PID() != cmd.Process.Pid {
					t.Errorf("Find gives %v, %v", p, err)
					return
				}
				p.Close()
			}
		})
	}
	wg.Wait()
}

// A miss looks at every process; a hit, after the first, at one.
func BenchmarkFind(b *testing.B) {
	for _, bm := range []struct {
		name string
		uid  uint32
	}{
		{"miss, a user with many processes", uint32(os.Getuid())},
		{"miss, a machine's own user", 0x6266ffff},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := vmm.Signature{Exe: "no-such-vmm", UID: bm.uid, Arg: "-qmp", Next: "unix:/nowhere"}
			for b.Loop() {
				if _, err := new(Finder).Find(b.Context(), s, vmm.Hint{}); !errors.Is(err, vmm.ErrNoProcess) {
					b.Fatal(err)
				}
			}
			pids, err := listPIDs()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(pids)), "processes")
		})
	}
	b.Run("hit again", func(b *testing.B) {
		file, exe := self(b)
		s := vmm.Signature{Exe: exe, UID: uint32(os.Getuid()), Arg: "-qmp", Next: "unix:" + b.TempDir()}
		start(b, file, "live", s.Arg, s.Next)
		var f Finder
		for b.Loop() {
			p, err := f.Find(b.Context(), s, vmm.Hint{})
			if err != nil {
				b.Fatal(err)
			}
			p.Close()
		}
	})
}
