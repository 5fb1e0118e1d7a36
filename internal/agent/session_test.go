package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
)

// A sessionBed is an agent and the place of its sessions, which another agent
// may take over. No session is left when the test ends.
type sessionBed struct {
	t *testing.T
	o ServeOptions
	guest.Agent
}

func newSessionBed(t *testing.T) *sessionBed {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "agent-session-") // short enough for sockets
	must(t, err)
	b := &sessionBed{t: t, o: ServeOptions{SessionDir: filepath.Join(dir, "s"), SessionRun: filepath.Join(dir, "r")}}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	t.Cleanup(b.deleteAll)
	b.Agent = dialAgent(t, b.o)
	return b
}

// deleteAll deletes every session and checks that its processes have gone.
func (b *sessionBed) deleteAll() {
	s := &sessions{dir: b.o.SessionDir, run: b.o.SessionRun, log: testLog(b.t)}
	ids, err := s.ids()
	must(b.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, id := range ids {
		st, err := sessiondir.ReadStatus(sessiondir.OSDir(s.path(id)))
		if err != nil {
			continue // the test garbled it
		}
		_, _ = s.stop(ctx, id, stopOrder{})
		for _, p := range []sessiondir.Process{st.Supervisor, st.Command} {
			for st.BootID == bootID() && alive(p) {
				if pause(ctx, time.Millisecond) != nil {
					b.t.Errorf("process %d of session %s is left", p.PID, id)
					break
				}
			}
		}
	}
}

// restart lets another agent take over.
func (b *sessionBed) restart() {
	b.t.Helper()
	b.Close()
	b.Agent = dialAgent(b.t, b.o)
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// start starts a session of a shell script.
func (b *sessionBed) start(stdin, script string) *wire.SessionStatus {
	b.t.Helper()
	return b.startWith(&wire.StartSessionRequest{
		Stdin: stdin, Command: &wire.ExecStart{Argv: []string{"sh", "-c", script}, Cwd: "/"},
	})
}

func (b *sessionBed) startWith(req *wire.StartSessionRequest) *wire.SessionStatus {
	b.t.Helper()
	if req.Id == "" {
		req.Id = newID()
	}
	res, err := b.StartSession(testContext(b.t), connect.NewRequest(req))
	must(b.t, err)
	return res.Msg.Session
}

func (b *sessionBed) status(id string) *wire.SessionStatus {
	b.t.Helper()
	res, err := b.ListSessions(testContext(b.t), connect.NewRequest(&wire.ListSessionsRequest{Ids: []string{id}}))
	must(b.t, err)
	if len(res.Msg.Sessions) != 1 {
		b.t.Fatalf("%d sessions with id %s", len(res.Msg.Sessions), id)
	}
	return res.Msg.Sessions[0]
}

// log returns what a stream holds; with follow, when the session has ended.
func (b *sessionBed) log(id string, stream sessiondir.Stream, follow bool) string {
	b.t.Helper()
	st, err := b.SessionLogs(testContext(b.t), connect.NewRequest(&wire.SessionLogsRequest{Id: id, Streams: []string{string(stream)}, Follow: follow}))
	must(b.t, err)
	defer st.Close()
	var all []byte
	for st.Receive() {
		all = append(all, st.Msg().Data...)
	}
	must(b.t, st.Err())
	return string(all)
}

func (b *sessionBed) send(start *wire.SendStart, parts ...string) *wire.SendSessionResponse {
	b.t.Helper()
	st := b.SendSession(testContext(b.t))
	must(b.t, st.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Start{Start: start}}))
	for _, p := range parts {
		// An error is told by the answer.
		_ = st.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Data{Data: []byte(p)}})
	}
	res, err := st.CloseAndReceive()
	must(b.t, err)
	return res.Msg
}

// ended waits until a session has ended.
func (b *sessionBed) ended(id string) *wire.SessionStatus {
	b.t.Helper()
	b.log(id, sessiondir.Stdout, true)
	return b.status(id)
}

// Three clients send at once, each is written whole, and the end of the input
// ends the command.
func TestSessionSend(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "cat; echo bye >&2; exit 3")
	if st.State != "running" || !st.StdinOpen || st.Pid == 0 {
		t.Fatalf("started: %v", st)
	}
	var all sync.WaitGroup
	want := 0
	for i := range 3 {
		line := strings.Repeat(fmt.Sprint(i), 100_000) + "\n"
		want += len(line)
		all.Go(func() {
			if res := b.send(&wire.SendStart{Id: st.Id}, line[:50_000], line[50_000:]); res.BytesWritten != int64(len(line)) {
				t.Errorf("send %d: %v", i, res)
			}
		})
	}
	all.Wait()
	if res := b.send(&wire.SendStart{Id: st.Id, CloseStdin: true}); res.BytesWritten != 0 || res.Refused != "" {
		t.Errorf("end of input: %v", res)
	}
	end := b.ended(st.Id)
	if end.State != "exited" || end.Code != 3 || end.StdinOpen || end.EndedNs < end.StartedNs {
		t.Errorf("ended: %v", end)
	}
	out := b.log(st.Id, sessiondir.Stdout, false)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	slices.Sort(lines)
	for i, line := range lines {
		if line != strings.Repeat(fmt.Sprint(i), 100_000) {
			t.Errorf("line %d is mixed: %.20q…, %d bytes", i, line, len(line))
		}
	}
	if len(out) != want || b.log(st.Id, sessiondir.Stderr, false) != "bye\n" {
		t.Errorf("%d bytes of %d; stderr %q", len(out), want, b.log(st.Id, sessiondir.Stderr, false))
	}
}

func TestSessionRefusesInput(t *testing.T) {
	b := newSessionBed(t)
	closed := b.start("closed", "exec sleep 1000")
	gone := b.ended(b.start("pipe", "exit 0").Id)
	for id, want := range map[string]string{
		closed.Id: "session does not have a stdin pipe",
		gone.Id:   "session is not running (status=exited)",
	} {
		for _, payload := range []string{"x", ""} {
			if res := b.send(&wire.SendStart{Id: id}, payload); res.Refused != want || res.BytesWritten != 0 {
				t.Errorf("send %q: %v, want %q", payload, res, want)
			}
		}
	}
	open := b.start("pipe", "exec sleep 1000")
	if res := b.send(&wire.SendStart{Id: open.Id}, ""); res.Refused != "" || res.BytesWritten != 0 {
		t.Errorf("nothing sent: %v", res)
	}
}

// A command that does not read keeps a sender waiting until its time is up, and
// the sender learns how much was written. The next one has its turn.
func TestSessionSendTimesOut(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "exec sleep 1000")
	big := strings.Repeat("x", 300_000)
	res := b.send(&wire.SendStart{Id: st.Id, TimeoutNs: int64(100 * time.Millisecond)}, big)
	if !res.TimedOut || res.BytesWritten != 64<<10 {
		t.Errorf("send: %v, want a pipe full", res)
	}
	if res := b.send(&wire.SendStart{Id: st.Id, TimeoutNs: int64(time.Millisecond)}, "y"); !res.TimedOut || res.BytesWritten != 0 {
		t.Errorf("send to a full pipe: %v", res)
	}
	// Who is cut off does not keep the turn.
	other := b.start("pipe", "exec cat")
	ctx, cancel := context.WithCancel(testContext(t))
	cut := b.SendSession(ctx)
	must(t, cut.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Start{Start: &wire.SendStart{Id: other.Id}}}))
	must(t, cut.Send(&wire.SendSessionRequest{Msg: &wire.SendSessionRequest_Data{Data: []byte("a")}}))
	for b.log(other.Id, sessiondir.Stdout, false) != "a" {
		must(t, pause(testContext(t), time.Millisecond))
	}
	// Who waits for the turn gives up in time, and nothing of it is written.
	for _, start := range []*wire.SendStart{{}, {CloseStdin: true}} {
		start.Id, start.TimeoutNs = other.Id, int64(50*time.Millisecond)
		if res := b.send(start, "z"); !res.TimedOut || res.BytesWritten != 0 {
			t.Errorf("send while another has the turn: %v", res)
		}
	}
	cancel()
	if res := b.send(&wire.SendStart{Id: other.Id, CloseStdin: true}, "b"); res.BytesWritten != 1 {
		t.Errorf("send after one that was cut off: %v", res)
	}
	if out := b.log(other.Id, sessiondir.Stdout, true); out != "ab" {
		t.Errorf("out %q", out)
	}
}

// What a session needs is checked first, and what is not there is told.
func TestSessionChecks(t *testing.T) {
	b := newSessionBed(t)
	sh := []string{"sh", "-c", "true"}
	for _, tt := range []struct {
		req  *wire.StartSessionRequest
		want string
	}{
		{&wire.StartSessionRequest{Command: &wire.ExecStart{Argv: sh, Cwd: "/no/such"}}, "change directory: stat /no/such: no such file or directory"},
		{&wire.StartSessionRequest{Command: &wire.ExecStart{Argv: []string{"no-such"}, Cwd: "/"}}, `"no-such": not found in PATH`},
		{&wire.StartSessionRequest{Command: &wire.ExecStart{Argv: sh, Cwd: "/"}, Required: []string{"sh", "jq-of-nobody"}}, `required command "jq-of-nobody": not found in PATH`},
		{&wire.StartSessionRequest{Command: &wire.ExecStart{Argv: sh, Cwd: "/", User: "nobody-of-this-name"}}, "no user"},
	} {
		tt.req.Stdin = "closed"
		st := b.startWith(tt.req)
		if st.State != "failed" || st.Stage != "check" || !strings.Contains(st.Message, tt.want) {
			t.Errorf("got %v, want %q", st, tt.want)
		}
	}
	// What only the kernel can tell fails at the start.
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte("echo\n"), 0o755))
	st := b.startWith(&wire.StartSessionRequest{Stdin: "closed", Command: &wire.ExecStart{Argv: []string{text}, Cwd: "/"}})
	if st.State != "failed" || st.Stage != "start" || !strings.Contains(st.Message, "exec format error") {
		t.Errorf("got %v", st)
	}
	for _, req := range []*wire.StartSessionRequest{
		{Id: "../../etc", Stdin: "closed", Command: &wire.ExecStart{Argv: sh}},
		{Id: newID(), Stdin: "file", Command: &wire.ExecStart{Argv: sh}},
		{Id: newID(), Stdin: "closed"},
	} {
		if _, err := b.StartSession(testContext(t), connect.NewRequest(req)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("start %v: %v", req, err)
		}
	}
	res, err := b.ListSessions(testContext(t), connect.NewRequest(&wire.ListSessionsRequest{}))
	must(t, err)
	if len(res.Msg.Sessions) != 0 {
		t.Errorf("left: %v", res.Msg.Sessions)
	}
}

// A session goes on without its agent, and the next agent finds it.
func TestSessionOutlivesAgent(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("pipe", "i=0; while read line; do i=$((i+1)); echo $i $line; done; exit 7")
	b.send(&wire.SendStart{Id: st.Id}, "one\n")
	b.restart()
	b.send(&wire.SendStart{Id: st.Id, CloseStdin: true}, "two\n")
	if end := b.ended(st.Id); end.State != "exited" || end.Code != 7 || end.Pid != st.Pid {
		t.Errorf("ended: %v", end)
	}
	if out := b.log(st.Id, sessiondir.Stdout, false); out != "1 one\n2 two\n" {
		t.Errorf("out %q", out)
	}
}

// A stop reaches the whole group, and who does not listen is killed.
func TestSessionStop(t *testing.T) {
	b := newSessionBed(t)
	for _, tt := range []struct {
		name, script string
		grace        time.Duration
		signal, out  string
	}{
		{"obeys", "sleep 1000; true", 10 * time.Second, "TERM", "up\n"},
		{"is deaf", "trap '' TERM; sleep 1000; sleep 1000", 50 * time.Millisecond, "KILL", "up\n"},
		{"its child takes its time", "sh -c 'trap \"sleep 0.1; echo saved; exit\" TERM; echo child; while :; do sleep 0.01; done' & wait", 10 * time.Second, "TERM", "up\nchild\nsaved\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := b.start("closed", "echo up; "+tt.script)
			for want := strings.TrimSuffix(tt.out, "saved\n"); b.log(st.Id, sessiondir.Stdout, false) != want; {
				must(t, pause(testContext(t), time.Millisecond))
			}
			res, err := b.StopSession(testContext(t), connect.NewRequest(&wire.StopSessionRequest{Id: st.Id, GraceNs: int64(tt.grace)}))
			must(t, err)
			if end := res.Msg.Session; end.State != "exited" || end.Signal != tt.signal {
				t.Errorf("stopped: %v", end)
			}
			if out := b.log(st.Id, sessiondir.Stdout, false); out != tt.out {
				t.Errorf("out %q", out)
			}
			_, err = b.StopSession(testContext(t), connect.NewRequest(&wire.StopSessionRequest{Id: st.Id}))
			if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "session is not running (status=exited)") {
				t.Errorf("stopped again: %v", err)
			}
		})
	}
}

func TestSessionSignal(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.01; done")
	for b.log(st.Id, sessiondir.Stdout, false) == "" {
		must(t, pause(testContext(t), time.Millisecond))
	}
	if _, err := b.SignalSession(testContext(t), connect.NewRequest(&wire.SignalSessionRequest{Id: st.Id, Signal: "NONE"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a signal that does not exist: %v", err)
	}
	_, err := b.SignalSession(testContext(t), connect.NewRequest(&wire.SignalSessionRequest{Id: st.Id, Signal: "USR1"}))
	must(t, err)
	if end := b.ended(st.Id); end.Code != 5 || b.log(st.Id, sessiondir.Stdout, false) != "up\ncaught\n" {
		t.Errorf("ended: %v", end)
	}
	// A real-time signal has no name.
	rt := b.start("closed", "kill -35 $$")
	if end := b.ended(rt.Id); end.State != "exited" || end.Code != 128+35 || end.Signal != "35" {
		t.Errorf("ended by signal 35: %v", end)
	}
}

// When its machine is to end, a session is asked to end, and has failed.
func TestSessionsEndWithMachine(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.01; done")
	for b.log(st.Id, sessiondir.Stdout, false) == "" {
		must(t, pause(testContext(t), time.Millisecond))
	}
	(&sessions{dir: b.o.SessionDir, run: b.o.SessionRun, log: testLog(t)}).endAll()
	if end := b.status(st.Id); end.State != "failed" || end.Message != "machine stopped" || end.Stage != "run" {
		t.Errorf("ended: %v", end)
	}
	if out := b.log(st.Id, sessiondir.Stdout, false); out != "up\nsaved\n" {
		t.Errorf("out %q", out)
	}
}

// A dead session never looks alive: not when its supervisor was killed, which
// takes the command with it, and not after another boot.
func TestSessionDead(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "exec sleep 1000")
	dir := filepath.Join(b.o.SessionDir, st.Id)
	kept, err := sessiondir.ReadStatus(sessiondir.OSDir(dir))
	must(t, err)
	other := kept
	other.BootID = "00000000-0000-4000-8000-000000000000"
	must(t, other.Write(dir))
	if got := b.status(st.Id); got.State != "failed" || got.Message != "machine stopped" {
		t.Errorf("after another boot: %v", got)
	}
	must(t, kept.Write(dir))
	must(t, unix.Kill(kept.Supervisor.PID, unix.SIGKILL))
	for alive(kept.Command) {
		must(t, pause(testContext(t), time.Millisecond))
	}
	if got := b.ended(st.Id); got.State != "failed" || got.Message != "its supervisor was killed" {
		t.Errorf("after its supervisor: %v", got)
	}
	must(t, os.WriteFile(filepath.Join(dir, "status"), []byte(`{"state": "running", "code": "\u001b[31m"}`), 0o600))
	if got := b.status(st.Id); got.State != "failed" || got.Message == "" {
		t.Errorf("with a garbled status: %v", got)
	}
	must(t, os.Remove(filepath.Join(dir, "status")))
	must(t, os.Chtimes(dir, time.Time{}, time.Now().Add(-time.Hour)))
	if got := b.status(st.Id); got.State != "failed" {
		t.Errorf("without a status: %v", got)
	}
	_, err = b.DeleteSession(testContext(t), connect.NewRequest(&wire.DeleteSessionRequest{Id: st.Id}))
	must(t, err)
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("deleted: %v", err)
	}
}

// Deleting ends a session that runs.
func TestSessionDelete(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "exec sleep 1000")
	command := identify(int(st.Pid))
	_, err := b.DeleteSession(testContext(t), connect.NewRequest(&wire.DeleteSessionRequest{Id: st.Id}))
	must(t, err)
	if alive(command) {
		t.Error("the command lives")
	}
	res, err := b.ListSessions(testContext(t), connect.NewRequest(&wire.ListSessionsRequest{}))
	must(t, err)
	if len(res.Msg.Sessions) != 0 {
		t.Errorf("left: %v", res.Msg.Sessions)
	}
	_, err = b.DeleteSession(testContext(t), connect.NewRequest(&wire.DeleteSessionRequest{Id: st.Id}))
	must(t, err)
}

// The command has the ordinary rank for when memory runs out, and none of our
// ignored signals.
func TestSessionInherits(t *testing.T) {
	b := newSessionBed(t)
	st := b.start("closed", "cat /proc/self/oom_score_adj; grep SigIgn /proc/self/status; echo $$; cut -d' ' -f5,6 /proc/$$/stat")
	b.ended(st.Id)
	lines := strings.Split(b.log(st.Id, sessiondir.Stdout, false), "\n")
	var group int
	fmt.Sscan(lines[3], &group)
	ours, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	must(t, err)
	if lines[1]+"\n" != string(ours) || lines[0] != "0" || group != int(st.Pid) {
		t.Errorf("got %q, and %q of ours", lines, ours)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("h\x00\x00\x00\x02{}"))
	f.Add([]byte("d\xff\xff\xff\xffx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			fr, err := readFrame(r)
			if err != nil {
				return
			}
			var out bytes.Buffer
			must(t, writeFrame(&out, fr.kind, fr.data))
			if again, err := readFrame(&out); err != nil || again.kind != fr.kind || !bytes.Equal(again.data, fr.data) {
				t.Fatalf("%v became %v, %v", fr, again, err)
			}
		}
	})
}

// There is a spare supervisor soon after a start, and none after it was dropped.
// One that died is done without.
func TestSessionSpare(t *testing.T) {
	s := &sessions{dir: t.TempDir(), run: t.TempDir(), log: testLog(t), spawn: newSpawner()}
	ready := func() *unborn {
		s.spare.prepare(s)
		for {
			if u := s.spare.take(); u != nil {
				return u
			}
			must(t, pause(testContext(t), time.Millisecond))
		}
	}
	ready().close()
	u := ready()
	u.tell.Close() // it ends
	s.spare.mu.Lock()
	s.spare.u = u
	s.spare.mu.Unlock()
	id := newID()
	must(t, os.Mkdir(s.path(id), 0o700))
	st, err := s.supervise(testContext(t), &sessionSpec{
		Dir: s.path(id), Socket: s.socket(id), Path: "/bin/true", Args: []string{"true"}, Cwd: "/", Stdin: stdinClosed,
	})
	if err != nil || st.State != sessiondir.Running {
		t.Errorf("without the spare: %+v, %v", st, err)
	}
	s.spare.drop()
	for alive(st.Supervisor) {
		must(t, pause(testContext(t), time.Millisecond))
	}
	if u := s.spare.take(); u != nil {
		t.Error("there is a spare after drop")
	}
}
