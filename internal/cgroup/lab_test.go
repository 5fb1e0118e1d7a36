//go:build lab

package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/hostcmd"
)

const id = "00000001"

// newGroups returns groups of a daemon of the test's own.
func newGroups(t *testing.T) *Groups {
	t.Helper()
	g := New(Options{Tag: "fedcba"})
	if err := g.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", g.dir, err)
		}
	})
	return g
}

// start starts a shell in a group, without privilege.
func start(t *testing.T, dir, script string) *os.Process {
	t.Helper()
	p, err := hostcmd.Detached{
		Argv: []string{"/bin/sh", "-c", script}, Dir: "/", Log: filepath.Join(t.TempDir(), "log"),
		Cgroup: dir, Credential: &hostcmd.Credential{UID: 65534, GID: 65534},
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func makeGroup(t *testing.T, g *Groups, memory int64, threads int) string {
	t.Helper()
	dir, err := g.Make(id, memory, threads)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A process starts in its group, with the limits; removing the group ends it.
func TestGroup(t *testing.T) {
	g := newGroups(t)
	dir := makeGroup(t, g, 64<<20, 10)
	if again := makeGroup(t, g, 32<<20, 20); again != dir || dir != g.Path(id) {
		t.Errorf("Make = %s, then %s; Path = %s", dir, again, g.Path(id))
	}
	for file, want := range map[string]string{"memory.max": "33554432", "pids.max": "20", "memory.oom.group": "1", "memory.swap.max": "max"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if got := strings.TrimSpace(string(text)); got != want && !(file == "memory.swap.max" && errors.Is(err, os.ErrNotExist)) {
			t.Errorf("%s = %q, %v, want %q", file, got, err, want)
		}
	}
	p := start(t, dir, "sleep 1000 & exec sleep 1000")
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/cgroup")
	if want := "0::/banger-fedcba/" + id + "\n"; err != nil || string(text) != want {
		t.Errorf("it is in %q, %v, want %q", text, err, want)
	}
	if err := g.Prune(nil); err == nil || !strings.Contains(err.Error(), "something runs in it") {
		t.Errorf("Prune of a group in use: %v", err)
	}
	for range 2 {
		if err := g.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if state, err := p.Wait(); err != nil || state.String() != "signal: killed" {
		t.Errorf("it ended with %v, %v", state, err)
	}
	if _, killed := g.OutOfMemory(id); killed {
		t.Error("killed for want of memory?")
	}
}

// Whoever takes too much is killed with all that is in its group, and why is
// told until that is removed.
func TestTooMuchMemory(t *testing.T) {
	g := newGroups(t)
	dir := makeGroup(t, g, 32<<20, 10)
	bystander := start(t, dir, "exec sleep 1000")
	hog := start(t, dir, "exec dd if=/dev/zero of=/dev/null bs=256M count=1")
	for _, p := range []*os.Process{bystander, hog} {
		if state, err := p.Wait(); err != nil || state.String() != "signal: killed" {
			t.Errorf("ended with %v, %v", state, err)
		}
	}
	if limit, killed := g.OutOfMemory(id); limit != 32<<20 || !killed {
		t.Errorf("OutOfMemory = %d, %t", limit, killed)
	}
	if err := g.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// Whoever forks while the group is removed leaves nobody in it.
func TestRemoveMeetsFork(t *testing.T) {
	g := newGroups(t)
	for range 50 {
		p := start(t, makeGroup(t, g, 64<<20, 10), "sleep 1000 & exec sleep 1000")
		if err := g.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// Page cache is charged to a group and taken back: no reason to kill.
func TestPageCacheIsNoReason(t *testing.T) {
	g := newGroups(t)
	dir := makeGroup(t, g, 32<<20, 10)
	file := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(os.WriteFile(file, nil, 0o666), os.Chmod(file, 0o666), os.Chmod(filepath.Dir(filepath.Dir(file)), 0o755), os.Chmod(filepath.Dir(file), 0o755)); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, "dd if=/dev/zero of="+file+" bs=1M count=128 && cat "+file+" > /dev/null")
	if state, err := p.Wait(); err != nil || !state.Success() {
		t.Errorf("it ended with %v, %v", state, err)
	}
	if err := g.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// More threads than allowed there are not.
func TestTooManyProcesses(t *testing.T) {
	g := newGroups(t)
	dir := makeGroup(t, g, 64<<20, 3)
	p := start(t, dir, "sleep 1000 & sleep 1000 & sleep 1000 & exit 0")
	if state, err := p.Wait(); err != nil || state.Success() {
		t.Errorf("four processes where three may be: %v, %v", state, err)
	}
	if err := g.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// A process that cannot end keeps its group, and whoever waits is told in time.
func TestRemoveWaitsAndGivesUp(t *testing.T) {
	g := newGroups(t)
	dir := makeGroup(t, g, 64<<20, 10)
	// A group below it, which no VMM can make, is what kills do not reach.
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx, id); !errors.Is(err, unix.EBUSY) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove = %v", err)
	}
	if err := errors.Join(os.Remove(below), g.Prune(nil)); err != nil {
		t.Fatal(err)
	}
}

// Machines come and go at once; the daemon's directory is there while one is.
func TestManyAtOnce(t *testing.T) {
	g := newGroups(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := "0000000" + strconv.Itoa(i)
			for range 20 {
				if _, err := g.Make(id, 64<<20, 10); err != nil {
					t.Errorf("Make: %v", err)
				}
				if err := g.Remove(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// What an earlier daemon left goes, but for what is to be kept.
func TestPrune(t *testing.T) {
	g := newGroups(t)
	for _, id := range []string{"00000001", "00000002"} {
		if _, err := g.Make(id, 64<<20, 10); err != nil {
			t.Fatal(err)
		}
	}
	next := New(Options{Tag: "fedcba"})
	if err := next.Prune(map[string]bool{"00000002": true}); err != nil {
		t.Error(err)
	}
	if entries, err := filepath.Glob(g.dir + "/0*"); err != nil || len(entries) != 1 || entries[0] != g.path("00000002") {
		t.Errorf("kept: %v, %v", entries, err)
	}
	if err := next.Prune(nil); err != nil {
		t.Error(err)
	}
}

// A hierarchy that cannot be written is told of.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount(top, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := check(dir); err != nil {
		t.Errorf("a second mount: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := check(dir); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("check = %v", err)
	}
}
