//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// session returns vm session show --json.
func (b *bed) session(machine, name string) map[string]any {
	b.t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(b.must("vm", "session", "show", "--json", machine, name)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// sessionLog returns all that a stream of a session holds.
func (b *bed) sessionLog(machine, name string, flags ...string) string {
	b.t.Helper()
	return b.must(append([]string{"vm", "session", "logs", "--all", machine, name}, flags...)...)
}

// Three clients send at once, each is read whole; the end of the input ends
// the command.
func TestSession(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.wants(0, "echo\n", "", "vm", "session", "start", "--name", "echo", "--stdin", "pipe", "web", "--", "cat")
	payloads := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 100_000), strings.Repeat("c", 100_000)}
	var all sync.WaitGroup
	for _, p := range payloads {
		all.Go(func() {
			if r := b.runIn(p+"\n", "vm", "session", "send", "--json", "web", "echo", "-"); r.code != 0 || !strings.Contains(string(r.stdout), `"bytes_written": 100001`) {
				t.Errorf("send: exit %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
	all.Wait()
	b.must("vm", "session", "send", "--eof", "web", "echo")
	out := b.must("vm", "session", "logs", "--follow", "--all", "web", "echo")
	got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	slices.Sort(got)
	if !slices.Equal(got, payloads) {
		t.Errorf("the log has %d lines, %d bytes", len(got), len(out))
	}
	if s := b.session("web", "echo"); s["status"] != "exited" || s["exit_code"] != 0.0 {
		t.Errorf("session is %v", s)
	}
}

// What send refuses, word for word; nothing is a success.
func TestSessionSendRefuses(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.must("vm", "session", "start", "--name", "deaf", "web", "--", "sleep", "1000")
	b.must("vm", "session", "start", "--name", "open", "--stdin", "pipe", "web", "--", "sleep", "1000")
	b.must("vm", "session", "start", "--name", "gone", "--stdin", "pipe", "web", "--", "true")
	b.must("vm", "session", "logs", "--follow", "web", "gone")
	b.wants(4, "", "session does not have a stdin pipe", "vm", "session", "send", "web", "deaf", "x")
	b.wants(4, "", "session is not running (status=exited)", "vm", "session", "send", "web", "gone", "x")
	if r := b.runIn("", "vm", "session", "send", "--json", "web", "open", "-"); r.code != 0 || !strings.Contains(string(r.stdout), `"bytes_written": 0`) {
		t.Errorf("nothing sent: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	b.wants(124, "", "65536", "vm", "session", "send", "--timeout", "2s", "web", "open", strings.Repeat("x", 100_000))
	b.must("vm", "stop", "web")
	b.wants(4, "", `vm "web" is not running`, "vm", "session", "send", "web", "open", "x")
	for _, name := range []string{"deaf", "open"} {
		if s := b.session("web", name); s["status"] != "failed" || s["failed_message"] != "machine stopped" {
			t.Errorf("%s: %v", name, s)
		}
	}
	if s := b.session("web", "gone"); s["status"] != "exited" {
		t.Errorf("gone: %v", s)
	}
}

// agentPID returns the process of the agent in a machine.
func (b *bed) agentPID(machine string) string {
	b.t.Helper()
	return strings.TrimSpace(b.must("vm", "exec", machine, "--", "sh", "-c", "pidof banger-agent | tr ' ' '\\n' | sort -n | head -n 1"))
}

// A session counts while the daemon is killed, and then its agent: no number is
// missing or doubled, who is attached stays so, and the exit code arrives.
func TestSessionOutlives(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	const count = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 5"
	b.must("vm", "session", "start", "--name", "count", "web", "--", "sh", "-c", count)
	attached := b.cmd("vm", "session", "attach", "--tail", "1000", "web", "count")
	var out, errs bytes.Buffer
	attached.Stdout, attached.Stderr = &out, &errs
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	after := func(n int) {
		t.Helper()
		b.eventually(fmt.Sprintf("%d is counted", n), 30*time.Second, func() bool {
			last := strings.TrimSpace(b.must("vm", "session", "logs", "--tail", "1", "web", "count"))
			got, err := strconv.Atoi(last)
			return err == nil && got >= n
		})
	}
	after(10)
	b.killDaemon()
	after(30)
	agent := b.agentPID("web")
	b.run("vm", "exec", "web", "--", "kill", "-KILL", agent)
	after(60)
	if now := b.agentPID("web"); now == agent {
		t.Errorf("the agent is still process %s", agent)
	}
	err := attached.Wait()
	var want strings.Builder
	for i := range 150 {
		fmt.Fprintln(&want, i+1)
	}
	if code := attached.ProcessState.ExitCode(); code != 5 {
		t.Errorf("attach: %v\n%s", err, errs.String())
	}
	if out.String() != want.String() {
		t.Errorf("who was attached saw %q", out.String())
	}
	if log := b.sessionLog("web", "count"); log != want.String() {
		t.Errorf("the log holds %q", log)
	}
	if s := b.session("web", "count"); s["status"] != "exited" || s["exit_code"] != 5.0 {
		t.Errorf("session is %v", s)
	}
}

// The logs of a machine that is off are those that it had; after its VMM was
// killed, all that was on its disk.
func TestSessionLogsOfStopped(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	const script = `i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo out $i; [ $((i%3)) = 0 ] && echo err $i >&2; done; printf '\000\377 no newline'; exec sleep 1000`
	b.must("vm", "session", "start", "--name", "talk", "web", "--", "sh", "-c", script)
	queries := [][]string{{"--all"}, {}, {"--tail", "7"}, {"--stream", "stderr"}, {"--stream", "both", "--tail", "50"}, {"--json"}}
	logs := func() (all []string) {
		for _, q := range queries {
			all = append(all, b.must(append([]string{"vm", "session", "logs", "web", "talk"}, q...)...))
		}
		return all
	}
	b.eventually("all is written", 20*time.Second, func() bool {
		return strings.HasSuffix(b.sessionLog("web", "talk"), "no newline")
	})
	before := logs()
	b.must("vm", "stop", "web")
	for i, after := range logs() {
		if after != before[i] {
			t.Errorf("logs %q of the stopped machine:\n%q\nwant\n%q", queries[i], after, before[i])
		}
	}
	b.wants(125, "", `vm "web" is not running`, "vm", "session", "attach", "web", "talk")

	b.must("vm", "start", "web")
	// What is fsynced is in the journal alone when the VMM dies.
	const synced = `echo synced; exec sleep 1000`
	b.must("vm", "session", "start", "--name", "sync", "web", "--", "sh", "-c", synced)
	id, _ := b.session("web", "sync")["id"].(string)
	b.eventually("it is written", 20*time.Second, func() bool { return b.sessionLog("web", "sync") == "synced\n" })
	log := "/root/.local/state/banger/sessions/" + id + "/stdout.log"
	b.must("vm", "exec", "web", "--", "dd", "if=/dev/null", "of="+log, "conv=notrunc,fsync")
	b.kill(b.vmmPID("web"))
	b.eventually("it is stopped", 20*time.Second, func() bool { return b.show("web")["state"] == "stopped" })
	if log := b.sessionLog("web", "sync"); log != "synced\n" {
		t.Errorf("after the VMM was killed: %q", log)
	}
	if s := b.session("web", "sync"); s["status"] != "failed" || s["failed_message"] != "machine stopped" {
		t.Errorf("session is %v", s)
	}
	// A machine that is started again does not wake it.
	b.must("vm", "start", "web")
	if s := b.session("web", "sync"); s["status"] != "failed" {
		t.Errorf("session is %v", s)
	}
	if log := b.sessionLog("web", "sync"); log != "synced\n" {
		t.Errorf("after the next start: %q", log)
	}
}

// Sessions are ended and removed, and nothing of them is left in the guest.
func TestSessionEnds(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	for _, name := range []string{"stop", "kill", "delete"} {
		b.must("vm", "session", "start", "--name", name, "--tag", "t", "web", "--", "sleep", "1000")
	}
	b.must("vm", "session", "start", "--name", "other", "web", "--", "sleep", "1000")
	b.must("vm", "session", "stop", "web", "stop")
	b.must("vm", "session", "kill", "--signal", "USR1", "web", "kill")
	b.must("vm", "session", "delete", "web", "delete")
	b.eventually("it has ended", 10*time.Second, func() bool { return b.session("web", "kill")["status"] == "exited" })
	for name, signal := range map[string]string{"stop": "TERM", "kill": "USR1"} {
		if s := b.session("web", name); s["status"] != "exited" || s["exit_signal"] != signal {
			t.Errorf("%s: %v", name, s)
		}
	}
	b.wants(3, "", "no session", "vm", "session", "show", "web", "delete")
	var list struct{ Sessions []struct{ Name string } }
	if err := json.Unmarshal([]byte(b.must("vm", "session", "list", "--json", "--tag", "t", "--status", "exited", "web")), &list); err != nil || len(list.Sessions) != 2 {
		t.Errorf("list: %v, %v", list, err)
	}
	b.must("vm", "session", "delete", "web", "stop", "kill", "other")
	b.wants(0, "left:\n", "", "vm", "exec", "web", "--", "sh", "-c", "echo left: $(ls /root/.local/state/banger/sessions; ls /run/banger/sessions; pidof sleep banger-session)")
}

// A disk that is full does not stop a session; the log says what is missing.
func TestSessionDiskFull(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.must("vm", "session", "start", "--name", "talk", "--stdin", "pipe", "web", "--", "sh", "-c", "cat; exit 3")
	b.must("vm", "session", "send", "web", "talk", "before")
	b.must("vm", "session", "start", "--name", "brief", "web", "--", "sleep", "1000")
	b.run("vm", "exec", "web", "--", "sh", "-c", "cat /dev/zero > /root/fill; sync; cat /dev/zero >> /root/fill")
	if r := b.runIn(strings.Repeat(strings.Repeat("lost", 1000)+"\n", 500), "vm", "session", "send", "web", "talk", "-"); r.code != 0 {
		t.Errorf("send to a full disk: exit %d\n%s", r.code, r.stderr)
	}
	// How one ends that ends meanwhile is told all the same.
	b.must("vm", "session", "kill", "--signal", "USR1", "web", "brief")
	b.eventually("it has ended", 10*time.Second, func() bool { return b.session("web", "brief")["exit_signal"] == "USR1" })
	b.must("vm", "exec", "web", "--", "rm", "/root/fill")
	b.must("vm", "session", "send", "web", "talk", "after")
	b.must("vm", "session", "send", "--eof", "web", "talk")
	log := b.must("vm", "session", "logs", "--all", "--follow", "web", "talk")
	if !strings.HasPrefix(log, "before\n") || !strings.HasSuffix(log, "after\n") || !strings.Contains(log, "[banger: ") {
		t.Errorf("the log holds %.200q … %q", log, log[max(0, len(log)-100):])
	}
	if s := b.session("web", "talk"); s["status"] != "exited" || s["exit_code"] != 3.0 {
		t.Errorf("session is %v", s)
	}
}

// A command on a terminal, through a real one of ours: it is sized, it is left
// with Ctrl-\, and it goes on.
func TestSessionTerminal(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.must("vm", "session", "start", "--name", "sh", "--stdin", "pty", "web", "--", "sh")
	c := b.cmd("vm", "session", "attach", "web", "sh")
	c.Args = append(c.Args[:2:2], "script", "-qec", "stty rows 31 cols 97; "+strings.Join(c.Args[2:], " "), "/dev/null")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out syncBuffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the terminal shows %q", out.String())
		}
	}()
	for _, step := range []struct{ keys, want string }{{"stty size\n", "31 97"}, {"echo $((6*7))\n", "42"}, {"\x1c", "detached"}} {
		fmt.Fprint(in, step.keys)
		b.eventually(fmt.Sprintf("%q is answered", step.keys), 20*time.Second, func() bool { return strings.Contains(out.String(), step.want) })
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("attach: %v\n%s", err, out.String())
	}
	if s := b.session("web", "sh"); s["status"] != "running" {
		t.Errorf("session is %v", s)
	}
}

// syncBuffer may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
