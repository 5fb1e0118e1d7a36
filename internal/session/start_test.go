package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/session"
	"banger/internal/session/sessiontest"
)

func TestStart(t *testing.T) {
	b := newBed(t)
	r := session.Request{
		Name: "echo", Argv: []string{"cat", "-u"}, Dir: "/srv", Env: map[string]string{"A": "1"}, User: "me",
		Stdin: session.Pipe, Tags: []string{"x", "y", "x"}, Required: []string{"sh"}, LogLimit: 1 << 20,
	}
	s, err := b.Start(t.Context(), "web", r)
	if err != nil {
		t.Fatal(err)
	}
	if !s.ID.Valid() || s.GuestPID == 0 || s.StartedAt.IsZero() || s.CreatedAt.After(s.StartedAt) || !slices.Equal(b.guest().IDs(), []string{string(s.ID)}) {
		t.Errorf("started %+v, the guest has %v", s, b.guest().IDs())
	}
	want := session.Session{
		ID: s.ID, Machine: b.web.ID, VM: "web", Name: "echo", Command: "cat", Args: []string{"-u"}, Dir: "/srv",
		Env: map[string]string{"A": "1"}, User: "me", Stdin: "pipe", Tags: []string{"x", "y"}, Required: []string{"sh"},
		LogLimit: 1 << 20, CreatedAt: s.CreatedAt,
		Standing: session.Standing{Status: session.Running, GuestPID: s.GuestPID, StartedAt: s.StartedAt},
	}
	for _, got := range []session.Session{s, b.recorded("echo"), b.show("echo"), b.show(string(s.ID)[:6])} {
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	bare, err := b.Start(t.Context(), "web", session.Request{Argv: []string{"cat"}})
	if err != nil || bare.Stdin != session.Closed || bare.User != "root" || bare.LogLimit != 64<<20 || session.CheckName(bare.Name) != nil {
		t.Errorf("a bare one: %+v, %v", bare, err)
	}
}

// What cannot be started leaves a session that says why.
func TestStartThatFails(t *testing.T) {
	b := newBed(t)
	for _, r := range []session.Request{
		{Name: "none", Argv: []string{sessiontest.Missing}},
		{Name: "needs", Argv: []string{"cat"}, Required: []string{"sh", sessiontest.Missing}},
	} {
		s, err := b.Start(t.Context(), "web", r)
		if err != nil || s.Status != session.Failed || s.FailedStage != "check" || s.FailedMessage == "" || s.EndedAt.IsZero() || !s.StartedAt.IsZero() {
			t.Errorf("started %+v, %v", s, err)
		}
		if got := b.show(r.Name); got.Standing != s.Standing {
			t.Errorf("recorded %+v, want %+v", got.Standing, s.Standing)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	b := newBed(t)
	b.start("taken", session.Closed)
	b.down(b.machine("off"))
	cat := []string{"cat"}
	tests := []struct {
		name string
		vm   string
		r    session.Request
		kind errkind.Kind
		text string
		hint string
	}{
		{"a stopped machine", "off", session.Request{Argv: cat}, errkind.Conflict, `vm "off" is not running`, "banger vm start off"},
		{"no machine", "wbe", session.Request{Argv: cat}, errkind.NotFound, `no machine "wbe"; there is web, off`, "banger vm list --all"},
		{"a name that is taken", "web", session.Request{Name: "taken", Argv: cat}, errkind.Conflict, `vm "web" has a session "taken" already`, "banger vm session show web taken"},
		{"no name", "web", session.Request{Name: "../x", Argv: cat}, errkind.Usage, `"../x" is no name for a session: it takes 1 to 63 lower-case letters, digits and inner hyphens`, ""},
		{"no command", "web", session.Request{}, errkind.Usage, "no command was given", ""},
		{"an empty command", "web", session.Request{Argv: []string{""}}, errkind.Usage, "no command was given", ""},
		{"no stdin", "web", session.Request{Argv: cat, Stdin: "tty"}, errkind.Usage, `"tty" is no stdin of a session; there is closed, pipe and pty`, ""},
		{"no log", "web", session.Request{Argv: cat, LogLimit: 1}, errkind.Usage, "a log of 1 bytes: it takes at least 4096", ""},
		{"no tag", "web", session.Request{Argv: cat, Tags: []string{"a\nb"}}, errkind.Usage, `"a\nb" is no tag: it takes 1 to 128 bytes of printable text`, ""},
		{"a NUL", "web", session.Request{Argv: []string{"cat", "a\x00b"}}, errkind.Usage, `"a\x00b": no word of a command can hold a NUL`, ""},
		{"no variable", "web", session.Request{Argv: cat, Env: map[string]string{"A=B": ""}}, errkind.Usage, `"A=B" is no name of an environment variable`, ""},
		{"required without a name", "web", session.Request{Argv: cat, Required: []string{""}}, errkind.Usage, "a required command has no name", ""},
		{"too much", "web", session.Request{Argv: []string{"cat", strings.Repeat("x", 600<<10)}}, errkind.Usage, "command and environment of 614407 bytes: a session takes at most 524288", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.Start(t.Context(), tt.vm, tt.r)
			refused(t, err, tt.kind, tt.text, tt.hint)
		})
	}
	if list, err := b.store.Sessions(t.Context(), ""); len(list) != 1 || err != nil {
		t.Errorf("recorded %d sessions, %v", len(list), err)
	}
}

// One of many starts under the same name succeeds, and leaves one session.
func TestStartSameName(t *testing.T) {
	b := newBed(t)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
			if _, err := b.List(t.Context(), "web", session.Filter{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else if errkind.Of(err) != errkind.Conflict {
			t.Error(err)
		}
	}
	if s := b.show("one"); done != 1 || s.Status != session.Running || len(b.guest().IDs()) != 1 {
		t.Errorf("%d succeeded; %+v; the guest has %v", done, s, b.guest().IDs())
	}
}

// A start goes on when its caller goes away.
func TestStartOutlivesItsCaller(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.guest().SetHook(func(_ context.Context, point string) error {
		if point == "before StartSession" {
			cancel()
		}
		return nil
	})
	s, err := b.Start(ctx, "web", session.Request{Argv: []string{"cat"}})
	if err != nil || s.Status != session.Running {
		t.Errorf("started %+v, %v", s, err)
	}
}

// A list made while a session is being started does not take it for one that
// has gone.
func TestListDuringStart(t *testing.T) {
	b := newBed(t)
	b.guest().SetHook(func(_ context.Context, point string) error {
		if point != "before StartSession" {
			return nil
		}
		list, err := b.List(context.Background(), "web", session.Filter{})
		if err != nil || len(list) != 1 || list[0].Status != session.Starting {
			t.Errorf("meanwhile: %+v, %v", list, err)
		}
		return nil
	})
	b.start("one", session.Closed)
}

// A session that is deleted while it is being started does not run then.
func TestDeleteDuringStart(t *testing.T) {
	b := newBed(t)
	b.guest().SetHook(func(_ context.Context, point string) error {
		if point == "before StartSession" {
			if _, err := b.Delete(context.Background(), "web", "one"); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	_, err := b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
	refused(t, err, errkind.NotFound, `session "one" was deleted meanwhile`, "banger vm session list web")
	if ids := b.guest().IDs(); len(ids) != 0 {
		t.Errorf("the guest has %v", ids)
	}
}

// Whatever fails in a start, record and guest agree then: what runs is recorded
// as running, and what is recorded as failed does not run.
func TestStartWithFailures(t *testing.T) {
	for _, point := range []string{"before StartSession", "after StartSession"} {
		t.Run(point, func(t *testing.T) {
			b := newBed(t)
			b.guest().SetHook(failAt(point))
			s, err := b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
			want := session.Running
			if point == "before StartSession" {
				want = session.Failed
			}
			if err != nil || s.Status != want || want == session.Failed && (s.FailedStage != "start" || !strings.Contains(s.FailedMessage, "boom")) {
				t.Errorf("started %+v, %v", s, err)
			}
			agree(t, b, string(want))
		})
	}
}

// A guest that talks nonsense of a session is rid of it.
func TestStartInAHostileGuest(t *testing.T) {
	b := newBed(t)
	b.guest().SetMangle(func(st *wire.SessionStatus) { st.State = "sleeping" })
	s, err := b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
	if err != nil || s.Status != session.Failed || s.FailedStage != "start" || s.FailedMessage != `the guest tells of a status "sleeping", which there is none of` || len(b.guest().IDs()) != 0 {
		t.Errorf("started %+v, %v; the guest has %v", s, err, b.guest().IDs())
	}
}

func failAt(point string) func(context.Context, string) error {
	return func(_ context.Context, at string) error {
		if at == point {
			return errBoom
		}
		return nil
	}
}

// agree checks that the one session "one" is recorded as it is in the guest.
func agree(t *testing.T, b *bed, want string) {
	t.Helper()
	s := b.show("one")
	runs := b.guest().State(string(s.ID)) == "running"
	if string(s.Status) != want || runs != (s.Status == session.Running) {
		t.Errorf("it is %s, want %s, and runs: %t", s.Status, want, runs)
	}
}

// A daemon that dies at any point of a start leaves what the next one finds.
func TestCrashInStart(t *testing.T) {
	tests := []struct {
		name, want string // want: the status then; empty: there is no record
		arm        func(b *bed, die func(error) error)
	}{
		{"before the record", "", func(b *bed, die func(error) error) { b.setFail(storeAt("CreateSession", die)) }},
		{"after the record", "failed", func(b *bed, die func(error) error) { b.guest().SetHook(guestAt("before StartSession", die)) }},
		{"after the start", "running", func(b *bed, die func(error) error) { b.guest().SetHook(guestAt("after StartSession", die)) }},
		{"before the outcome", "running", func(b *bed, die func(error) error) { b.setFail(storeAt("ChangeSessions", die)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			// From when on nothing that the daemon does has an effect any more.
			die := func(err error) error {
				b.machines.setErr(errBoom)
				b.setFail(func(string) error { return errBoom })
				return err
			}
			tt.arm(b, die)
			_, _ = b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
			b.close()
			b.setFail(nil)
			b.machines.setErr(nil)
			b.guest().SetHook(nil)
			b.open()
			if tt.want == "" {
				_, err := b.Show(t.Context(), "web", "one")
				refused(t, err, errkind.NotFound, `no session "one" in "web"`, "banger vm session list web")
				return
			}
			if s := b.recorded("one"); s.Status != session.Starting {
				t.Fatalf("the dead daemon recorded %+v", s)
			}
			agree(t, b, tt.want)
		})
	}
}

func storeAt(method string, die func(error) error) func(string) error {
	return func(m string) error {
		if m == method {
			return die(errBoom)
		}
		return nil
	}
}

func guestAt(point string, die func(error) error) func(context.Context, string) error {
	return func(_ context.Context, at string) error {
		if at == point {
			return die(errBoom)
		}
		return nil
	}
}

// An agent that does not answer leaves a start open; when it does again, the
// next read finds what became of it.
func TestStartWithASilentAgent(t *testing.T) {
	b := newBed(t)
	b.SetPatience(50 * time.Millisecond)
	b.guest().SetHook(func(ctx context.Context, at string) error {
		if at == "before StartSession" {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	s, err := b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
	refused(t, err, errkind.Timeout, `start session "one": the agent of "web" did not answer within 50ms; whether it runs is not known`, "banger vm session show web one")
	if s = b.recorded("one"); s.Status != session.Starting || s.LastError == "" {
		t.Errorf("recorded %+v", s)
	}
	b.guest().SetHook(nil)
	b.restart()
	agree(t, b, "running")
	if s := b.recorded("one"); s.LastError != "" {
		t.Errorf("last error %q", s.LastError)
	}
}

// An agent that is of an older release says so in words.
func TestOldAgent(t *testing.T) {
	b := newBed(t)
	b.guest().SetHook(func(context.Context, string) error { return unimplemented })
	_, err := b.Start(t.Context(), "web", session.Request{Name: "one", Argv: []string{"cat"}})
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(fmt.Sprint(err), "of an older release") {
		t.Errorf("Start = %v", err)
	}
}
