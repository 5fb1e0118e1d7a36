//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpuTime returns how long a machine's VMM has used a processor, in ticks.
func (b *bed) cpuTime(name string) int {
	b.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.vmmPID(name)))
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold anything
	fields := strings.Fields(rest)                // from the third on (proc_pid_stat(5))
	user, uerr := strconv.Atoi(fields[14-3])
	system, serr := strconv.Atoi(fields[15-3])
	if uerr != nil || serr != nil {
		b.t.Fatal(uerr, serr)
	}
	return user + system
}

// clockOff returns how far a guest's clock is from the host's, at least: a
// command tells it, which takes its time.
func (b *bed) clockOff(name string) time.Duration {
	b.t.Helper()
	before := time.Now()
	out := b.must("vm", "exec", name, "--", "adjtimex")
	after := time.Now()
	var sec, usec int64
	for line := range strings.Lines(out) {
		_, _ = fmt.Sscanf(line, " time.tv_sec: %d", &sec) // of other lines nothing is read
		_, _ = fmt.Sscanf(line, " time.tv_usec: %d", &usec)
	}
	if sec == 0 {
		b.t.Fatalf("adjtimex says %q", out)
	}
	// It tells whole microseconds.
	switch told := time.UnixMicro(sec*1e6 + usec + 1); {
	case told.Before(before):
		return told.Sub(before)
	case told.After(after):
		return told.Sub(after)
	}
	return 0
}

// A machine that counts is paused, its daemon killed, and it is resumed: it
// stood meanwhile, no number is missing or doubled, and its clock is right.
func TestPauseResume(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	const count = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 5"
	b.must("vm", "session", "start", "--name", "count", "web", "--", "sh", "-c", count)
	b.must("vm", "session", "logs", "web", "count")
	boot := b.must("vm", "exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id")
	b.must("vm", "pause", "web")
	paused := time.Now()
	used := b.cpuTime("web")
	b.killDaemon()
	if got := b.show("web"); got["state"] != "paused" || got["state_reason"] != "paused on request" {
		t.Errorf("it is %v: %v", got["state"], got["state_reason"])
	}
	b.eventually("three seconds have gone", 10*time.Second, func() bool { return time.Since(paused) > 3*time.Second })
	if now := b.cpuTime("web"); now > used+10 { // its VMM is asked how it does
		t.Errorf("while it was paused it used the processor for %d ticks", now-used)
	}
	b.wants(0, "web resumed\n", "", "vm", "resume", "web")
	if off := b.clockOff("web").Abs(); off > 50*time.Millisecond {
		t.Errorf("the clock is off by %s", off)
	}
	var want strings.Builder
	for i := 1; i <= 60; i++ {
		fmt.Fprintln(&want, i)
	}
	if got := b.must("vm", "session", "logs", "--follow", "--all", "web", "count"); got != want.String() {
		t.Errorf("it counted\n%s", got)
	}
	if s := b.session("web", "count"); s["status"] != "exited" || s["exit_code"] != 5.0 {
		t.Errorf("the session is %v", s)
	}
	if now := b.must("vm", "exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id"); now != boot {
		t.Errorf("it was started anew")
	}
}

// Whoever uses a machine that is paused resumes it; one that is to be stopped
// goes on to write what it has to.
func TestPausedIsUsed(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for _, use := range [][]string{
		{"vm", "exec", "web", "--", "true"},
		{"vm", "ssh", "web", "--", "true"},
		{"vm", "cp", "web:/etc/hostname", b.root + "/hostname"},
		{"vm", "session", "start", "web", "--", "true"},
	} {
		b.must("vm", "pause", "web")
		b.must(use...)
		if got := b.show("web")["state"]; got != "running" {
			t.Errorf("after %v it is %v", use, got)
		}
	}
	b.must("vm", "exec", "web", "--", "sh", "-c", "echo kept > /root/kept")
	b.must("vm", "pause", "web")
	b.wants(0, "web stopped\n", "", "vm", "stop", "web")
	if got := b.show("web")["state_reason"]; got != "stopped on request" {
		t.Errorf("it is stopped, because %q", got)
	}
	b.must("vm", "start", "web")
	b.wants(0, "kept\n", "", "vm", "exec", "web", "--", "cat", "/root/kept")
	b.must("vm", "pause", "web")
	b.must("vm", "delete", "web")
}

// Wherever the daemon dies while it pauses a machine or resumes it, the next
// one has it as it was to be.
func TestDaemonDiesPausing(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for _, c := range []struct{ point, verb, state string }{
		{"pause/recorded", "pause", "paused"},
		{"resume/recorded", "resume", "running"},
		{"pause/done", "pause", "paused"},
		{"resume/done", "resume", "running"},
	} {
		b.must("daemon", "stop")
		b.failpoints = c.point + "=crash"
		if r := b.run("vm", c.verb, "web"); r.code == 0 {
			t.Errorf("%s: the daemon died and %s succeeded", c.point, c.verb)
		}
		b.failpoints = ""
		b.eventually("machine is "+c.state, 15*time.Second, func() bool { return b.show("web")["state"] == c.state })
		if c.state == "running" {
			b.wants(0, "here\n", "", "vm", "exec", "web", "--", "echo", "here")
		}
	}
}
