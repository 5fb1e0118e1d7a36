package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWeights(t *testing.T) {
	dir := t.TempDir()
	note := dir + "/note"
	service := "system.slice/agent.service"
	put(t, dir, "self", "1:name=systemd:/other\n0::/"+service+"\n")
	put(t, dir, service+"/cpu.weight", "70\n")
	put(t, dir, "system.slice/cpu.weight", "100\n")
	put(t, dir, "cpu.weight", "5\n")
	put(t, dir, "system.slice/other.service/cpu.weight", "60\n")
	check := func(doing, agent, slice string) {
		t.Helper()
		for name, want := range map[string]string{
			service: agent, "system.slice": slice, "": "5\n", "system.slice/other.service": "60\n",
		} {
			if got := content(t, filepath.Join(dir, name, "cpu.weight")); got != want {
				t.Errorf("%s: weight of %q is %q, want %q", doing, name, got, want)
			}
		}
	}
	for range 2 { // the second must not take the first's for what was there
		must(t, raiseWeights(dir, dir+"/self", note))
		check("raise", hurryWeight, hurryWeight)
	}
	for range 2 {
		must(t, restoreWeights(dir, note))
		check("restore", "70", "100")
	}
	if exists(note) {
		t.Error("the note is still there")
	}
	// Where one cannot be set, the others are set back all the same.
	must(t, raiseWeights(dir, dir+"/self", note))
	must(t, os.RemoveAll(filepath.Join(dir, service)))
	if err := restoreWeights(dir, note); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("restoreWeights without the group = %v", err)
	}
	if got := content(t, dir+"/system.slice/cpu.weight"); got != "100" || exists(note) {
		t.Errorf("then the slice has %q, and the note is there: %t", got, exists(note))
	}
}

// Without control groups of version 2, or in their root, there is nothing to do.
func TestNoWeights(t *testing.T) {
	dir := t.TempDir()
	for _, self := range []string{"", "0::/\n", "3:cpu:/a\n", "0::/none\n"} {
		put(t, dir, "self", self)
		if err := raiseWeights(dir, dir+"/self", dir+"/note"); err != nil || exists(dir+"/note") {
			t.Errorf("%q: %v, noted: %t", self, err, exists(dir+"/note"))
		}
	}
	must(t, restoreWeights(dir, dir+"/note"))
}

// TestPolicy: users' processes do not inherit the agent's rank, and the runtime's
// monitor, which would then have no slack, does not get it.
func TestPolicy(t *testing.T) {
	if err := setPolicy(unix.SCHED_RR, 1); errors.Is(err, unix.EPERM) {
		t.Skip("may not schedule in real time")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, setPolicy(unix.SCHED_NORMAL, 0)) })
	out, err := newGuestSystem(newSpawner()).run(testContext(t), []string{"sh", "-c", "exec cat /proc/self/stat"})
	if err != nil {
		t.Fatal(err)
	}
	if policy := statField(t, out, 41); policy != "0" {
		t.Errorf("a process has policy %s, want 0", policy)
	}
	monitor, err := monitorThread()
	must(t, err)
	for tid, want := range map[int]string{monitor: "0", os.Getpid(): "2"} {
		stat := content(t, fmt.Sprintf("/proc/self/task/%d/stat", tid))
		_, stat, _ = strings.Cut(stat, ") ") // a name may have blanks
		if got := statField(t, stat, 41-2); got != want {
			t.Errorf("thread %d of %d has policy %s, want %s", tid, os.Getpid(), got, want)
		}
	}
}

// statField returns a field, counted from 1, of the last line of text, which is
// that of proc_pid_stat(5) of a program without blanks in its name.
func statField(t *testing.T, text string, n int) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) < n {
		t.Fatalf("%q has no field %d", lines[len(lines)-1], n)
	}
	return fields[n-1]
}
