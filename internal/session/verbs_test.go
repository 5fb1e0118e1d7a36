package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/session"
	"banger/internal/vm"
)

func TestSend(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Pipe)
	var wg sync.WaitGroup
	for _, c := range "abc" {
		wg.Go(func() {
			text := strings.Repeat(string(c), 100<<10)
			if sent, err := b.send("one", false, text[:10], "", text[10:]); err != nil || sent.Bytes != 100<<10 {
				t.Errorf("sent %+v, %v", sent, err)
			}
		})
	}
	wg.Wait()
	out := b.guest().Output(string(s.ID), "stdout")
	for _, c := range "abc" {
		if !strings.Contains(out, strings.Repeat(string(c), 100<<10)) {
			t.Errorf("what was sent of %c is not whole", c)
		}
	}
	if sent, err := b.send("one", false); err != nil || sent != (session.Sent{}) {
		t.Errorf("an empty payload: %+v, %v", sent, err)
	}
	if sent, err := b.send("one", true); err != nil || sent != (session.Sent{}) {
		t.Errorf("an end of input: %+v, %v", sent, err)
	}
	if got := b.show("one"); got.Status != session.Exited || got.ExitCode != 0 {
		t.Errorf("after its input has ended: %+v", got)
	}
	pty := b.start("pty", session.PTY)
	if sent, err := b.send(string(pty.ID)[:8], false, "typed"); err != nil || sent.Bytes != 5 || b.guest().Output(string(pty.ID), "stdout") != "typed" {
		t.Errorf("typed: %+v, %v", sent, err)
	}
}

// The three refusals, word for word, with a payload and without; and whether or
// not the record knows already.
func TestSendRefuses(t *testing.T) {
	const gone, noPipe, off = "session is not running (status=exited)", "session does not have a stdin pipe", `vm "web" is not running`
	const show = "banger vm session show web "
	b := newBed(t)
	closed := b.start("closed", session.Closed)
	b.start("open", session.Pipe)
	exited := b.start("exited", session.Pipe)
	b.guest().End(string(exited.ID), 0, "")
	both := func(ref, text, hint string, k errkind.Kind) {
		t.Helper()
		for _, payload := range [][]string{{"x"}, nil} {
			_, err := b.send(ref, false, payload...)
			refused(t, err, k, text, hint)
		}
	}
	both("exited", gone, show+"exited", errkind.Conflict)
	both("exited", gone, show+"exited", errkind.Conflict) // by the record
	both("closed", noPipe, "", errkind.Conflict)
	b.guest().End(string(closed.ID), 1, "")
	both("closed", gone, show+"closed", errkind.Conflict)
	both("opne", `no session "opne" in "web"; there is open, closed, exited`, "banger vm session list web", errkind.NotFound)
	b.down(b.web)
	both("open", off, "banger vm start web", errkind.Conflict)
	both("exited", off, "banger vm start web", errkind.Conflict)
	if _, err := b.Start(t.Context(), "web", session.Request{Argv: []string{"cat"}}); errkind.Of(err) != errkind.Conflict || err.Error() != off {
		t.Errorf("start: %v", err)
	}
	b.up(b.web)
	both("open", strings.Replace(gone, "exited", "failed", 1), show+"open", errkind.Conflict)
}

// What the agent refuses is put in our words, with what was written before.
func TestSendRefusedByTheAgent(t *testing.T) {
	b := newBed(t)
	one := b.start("one", session.Pipe)
	b.guest().SetHook(func(_ context.Context, point string) error {
		if point == "before SendSession" {
			b.guest().End(string(one.ID), 0, "")
		}
		return nil
	})
	_, err := b.send("one", false, "x")
	refused(t, err, errkind.Conflict, "session is not running (status=exited)", "banger vm session show web one")
}

// A caller that goes away in the middle of what it sends has sent nothing.
func TestSendBrokenOff(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Pipe)
	parts := 0
	_, err := b.Send(t.Context(), "web", "one", session.Input{Next: func() ([]byte, error) {
		if parts++; parts > 1 {
			return nil, errBoom
		}
		return []byte("half"), nil
	}})
	if !errors.Is(err, errBoom) || b.guest().Output(string(s.ID), "stdout") != "" {
		t.Errorf("Send = %v", err)
	}
}

func TestStopAndKill(t *testing.T) {
	b := newBed(t)
	b.start("stopped", session.Closed)
	b.start("killed", session.Closed)
	hup := b.start("hup", session.Closed)
	check := func(s session.Session, err error, code int32, signal string) {
		t.Helper()
		if err != nil || s.Status != session.Exited || s.ExitCode != code || s.ExitSignal != signal || b.recorded(s.Name).Standing != s.Standing {
			t.Errorf("%+v, %v", s, err)
		}
	}
	s, err := b.Stop(t.Context(), "web", "stopped", -1)
	check(s, err, 143, "TERM")
	s, err = b.Kill(t.Context(), "web", "killed", "")
	check(s, err, 137, "KILL")
	if s, err = b.Kill(t.Context(), "web", "hup", "SIGHUP"); err != nil || s.Status != session.Running {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = b.Kill(t.Context(), "web", "hup", "NONE")
	refused(t, err, errkind.Usage, "no signal NONE", "")
	_, err = b.Kill(t.Context(), "web", "hup", "../x")
	refused(t, err, errkind.Usage, `"../x" is no signal`, "")

	_, err = b.Stop(t.Context(), "web", "stopped", 0)
	refused(t, err, errkind.Conflict, "session is not running (status=exited)", "banger vm session show web stopped")
	b.guest().End(string(hup.ID), 0, "")
	_, err = b.Kill(t.Context(), "web", "hup", "")
	refused(t, err, errkind.Conflict, "session is not running (status=exited)", "banger vm session show web hup")
	b.down(b.web)
	_, err = b.Stop(t.Context(), "web", "stopped", 0)
	refused(t, err, errkind.Conflict, `vm "web" is not running`, "banger vm start web")
}

// A stop that the guest does not answer ends, in words, and leaves the session as
// it was.
func TestStopOfASilentGuest(t *testing.T) {
	b := newBed(t)
	b.start("one", session.Closed)
	b.SetPatience(100 * time.Millisecond)
	silence := make(chan struct{})
	defer close(silence)
	b.guest().SetHook(func(ctx context.Context, at string) error {
		if strings.HasSuffix(at, "StopSession") {
			<-silence // also when the guest hears that nobody waits any more
		}
		return nil
	})
	_, err := b.Stop(t.Context(), "web", "one", 0)
	refused(t, err, errkind.Timeout, "the guest did not answer within 100ms", "")
	if s := b.recorded("one"); s.Status != session.Running {
		t.Errorf("recorded %+v", s)
	}
}

func TestDelete(t *testing.T) {
	b := newBed(t)
	one, two := b.start("one", session.Closed), b.start("two", session.Closed)
	three := b.start("three", session.Closed)
	b.guest().SetHook(failAt("before DeleteSession"))
	if _, err := b.Delete(t.Context(), "web", "one"); err == nil || b.recorded("one").Status != session.Running {
		t.Errorf("Delete = %v", err)
	}
	b.guest().SetHook(nil)
	if s, err := b.Delete(t.Context(), "web", "one"); err != nil || s.Name != "one" || b.guest().State(string(one.ID)) != "" {
		t.Errorf("Delete = %+v, %v", s, err)
	}
	b.guest().Forget(string(two.ID))
	if s, err := b.Delete(t.Context(), "web", "two"); err != nil || s.Status != session.Failed {
		t.Errorf("Delete of what the guest has not = %+v, %v", s, err)
	}
	_, err := b.Delete(t.Context(), "web", "two")
	refused(t, err, errkind.NotFound, `no session "two" in "web"; there is three`, "banger vm session list web")

	b.down(b.web)
	if s, err := b.Delete(t.Context(), "web", "three"); err != nil || s.Status != session.Failed || s.FailedMessage != "machine stopped" {
		t.Errorf("Delete while it is off = %+v, %v", s, err)
	}
	b.up(b.web)
	b.guest().Put(string(three.ID))
	if list, err := b.List(t.Context(), "web", session.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	eventually(t, "that its directory goes", func() bool { return len(b.guest().IDs()) == 0 })
}

// A machine takes its sessions with it.
func TestMachineDeleted(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	if err := b.store.Delete(t.Context(), b.web.ID); err != nil {
		t.Fatal(err)
	}
	if list, err := b.List(t.Context(), "", session.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	if _, err := b.Show(t.Context(), string(b.web.ID), string(s.ID)); errkind.Of(err) != errkind.NotFound {
		t.Errorf("Show = %v", err)
	}
}

// logs returns what Logs sends of a session of web.
func (b *bed) logs(ref string, r session.LogRequest) (string, error) {
	var out strings.Builder
	err := b.Logs(b.t.Context(), "web", ref, r, func(_ session.Session, p *wire.SessionLogsResponse) error {
		fmt.Fprintf(&out, "[%s %d]%s", p.Stream, p.Offset, p.Data)
		return nil
	})
	return out.String(), err
}

func TestLogs(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintln(&lines, i)
	}
	b.guest().Write(string(s.ID), "stdout", lines.String())
	b.guest().Write(string(s.ID), "stderr", "bad\n")
	last := func(n int) string {
		all := strings.SplitAfter(lines.String(), "\n")
		tail := strings.Join(all[300-n:], "")
		return fmt.Sprintf("[stdout %d]%s", lines.Len()-len(tail), tail)
	}
	tests := []struct {
		r    session.LogRequest
		want string
	}{
		{session.LogRequest{}, last(200)},
		{session.LogRequest{Tail: -5}, last(200)},
		{session.LogRequest{Tail: 2, Stream: "stdout"}, last(2)},
		{session.LogRequest{All: true, Tail: 3}, last(300)},
		{session.LogRequest{Tail: 1000}, last(300)},
		{session.LogRequest{Stream: "stderr"}, "[stderr 0]bad\n"},
		{session.LogRequest{Stream: "both", Tail: 1}, last(1) + "[stderr 0]bad\n"},
		{session.LogRequest{Stream: "both", FromStdout: int64(lines.Len()) - 3, FromStderr: 3}, last(1) + "[stderr 2]d\n"},
	}
	for _, tt := range tests {
		if got, err := b.logs("one", tt.r); err != nil || got != tt.want {
			t.Errorf("%+v: %q, %v, want %q", tt.r, got, err, tt.want)
		}
	}
	_, err := b.logs("one", session.LogRequest{Stream: "stdin"})
	refused(t, err, errkind.Usage, `"stdin" is no stream of a session; there is stdout, stderr and both`, "")
	b.guest().Forget(string(s.ID))
	_, err = b.logs("one", session.LogRequest{})
	refused(t, err, errkind.NotFound, `session "one" has no logs`, "banger vm session show web one")
}

// Following ends with the session.
func TestLogsFollow(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	var got strings.Builder
	b.guest().Write(string(s.ID), "stdout", "1\n")
	err := b.Logs(t.Context(), "web", "one", session.LogRequest{Follow: true}, func(_ session.Session, p *wire.SessionLogsResponse) error {
		got.Write(p.Data)
		if got.String() == "1\n" {
			b.guest().Write(string(s.ID), "stdout", "2\n")
			b.guest().End(string(s.ID), 0, "")
		}
		return nil
	})
	if err != nil || got.String() != "1\n2\n" {
		t.Errorf("%q, %v", got.String(), err)
	}
}

// Of a machine that is stopped, logs come from its work disk.
func TestLogsOfAStoppedMachine(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	b.start("two", session.Closed)
	b.disks.logs = map[session.ID]string{s.ID: "left"}
	b.state(b.web, vm.Stopping)
	_, err := b.logs("one", session.LogRequest{})
	refused(t, err, errkind.Conflict, `vm "web" is stopping: the logs of its sessions can be read when it runs or is stopped`, "banger vm show web")
	b.machines.end(b.web.ID)
	b.state(b.web, vm.Stopped)
	if got, err := b.logs("one", session.LogRequest{Follow: true}); err != nil || got != "[stdout 0]left" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = b.logs("two", session.LogRequest{})
	refused(t, err, errkind.NotFound, `session "two" has no logs`, "banger vm session show web two")
}

// A connection that breaks, and a machine that ends, are told apart.
func TestBrokenConnection(t *testing.T) {
	for _, end := range []bool{false, true} {
		b := newBed(t)
		s := b.start("one", session.Closed)
		b.guest().Write(string(s.ID), "stdout", "1\n")
		err := b.Logs(t.Context(), "web", "one", session.LogRequest{Follow: true}, func(session.Session, *wire.SessionLogsResponse) error {
			if end {
				b.machines.end(b.web.ID)
			} else {
				b.guest().Break()
			}
			return nil
		})
		want := `lost the agent of "web"; the session goes on: `
		if end {
			want = `machine "web" ended while logs of session one were read: it was unplugged`
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) || errkind.Of(err) != errkind.Internal {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What comes of a stream that nobody asked for is not passed on.
func TestLogsOfAHostileDisk(t *testing.T) {
	b := newBed(t)
	b.start("one", session.Closed)
	b.down(b.web)
	for _, p := range []*wire.SessionLogsResponse{{Stream: "../x"}, {Stream: "stderr"}, {Stream: "stdout", Offset: -1}} {
		m := session.New(session.Deps{Records: b.store, Machines: b.machines, Disks: oneAnswer{p}})
		err := m.Logs(t.Context(), "web", "one", session.LogRequest{}, func(session.Session, *wire.SessionLogsResponse) error {
			t.Errorf("%v was passed on", p)
			return io.EOF
		})
		if err == nil {
			t.Errorf("%v is taken", p)
		}
	}
}

type oneAnswer struct{ p *wire.SessionLogsResponse }

func (oneAnswer) Status(context.Context, vm.ID, session.ID) (*wire.SessionStatus, error) {
	return nil, errBoom
}

func (o oneAnswer) Logs(_ context.Context, _ vm.ID, _ session.ID, _ *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error {
	return emit(o.p)
}
