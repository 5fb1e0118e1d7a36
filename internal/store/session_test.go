package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/session"
	"banger/internal/vm"
)

// aSession is a record as it is made, with the nth id.
func aSession(machine vm.ID, name string, n int) session.Session {
	return session.Session{
		ID: session.ID(fmt.Sprintf("%032x", n)), Machine: machine, Name: name, Command: "cat",
		Args: []string{"-u", "", "ü \"\n<&>"}, Dir: "/srv", Env: map[string]string{"A": "1"}, User: "root", Stdin: session.Pipe,
		Tags: []string{"b", "a"}, Required: []string{"sh"}, LogLimit: 64 << 20,
		Standing: session.Standing{Status: session.Starting},
	}
}

// withSession returns a store with a machine "web" and a session "echo" in it.
func withSession(t *testing.T, o Options) (*Store, vm.VM, session.Session) {
	t.Helper()
	s := newStore(t, o)
	v := mustCreate(t, s, machine("web"))
	n, err := s.CreateSession(t.Context(), aSession(v.ID, "echo", 0xa0))
	if err != nil {
		t.Fatal(err)
	}
	return s, v, n
}

func TestCreateSession(t *testing.T) {
	s, v, got := withSession(t, options())
	want := aSession(v.ID, "echo", 0xa0)
	want.VM, want.CreatedAt = "web", t0
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("CreateSession (-want +got):\n%s", d)
	}
	for _, ref := range []string{"echo", string(got.ID), string(got.ID)[:1]} {
		got, err := s.ResolveSession(t.Context(), v.ID, ref)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("ResolveSession of %s: %v (-want +got):\n%s", ref, err, d)
		}
	}
}

func TestCreateSessionRefuses(t *testing.T) {
	s, v, n := withSession(t, options())
	bad := func(f func(*session.Session)) session.Session {
		n := aSession(v.ID, "other", 0xb0)
		f(&n)
		return n
	}
	tests := []struct {
		name string
		n    session.Session
		kind errkind.Kind
		text string
	}{
		{"name taken", aSession(v.ID, "echo", 0xb0), errkind.Conflict, `vm "web" has a session "echo" already`},
		{"id taken", bad(func(n *session.Session) { n.ID = aSession("", "", 0xa0).ID }), errkind.Internal, "sessions.id"},
		{"bad name", bad(func(n *session.Session) { n.Name = "../x" }), errkind.Usage, "no name for a session"},
		{"no machine", bad(func(n *session.Session) { n.Machine = "ffffffff" }), errkind.NotFound, "no machine with id"},
		{"bad id", bad(func(n *session.Session) { n.ID = "../x" }), errkind.Internal, "id"},
		{"no command", bad(func(n *session.Session) { n.Command = "" }), errkind.Internal, "command"},
		{"bad stdin", bad(func(n *session.Session) { n.Stdin = "tty" }), errkind.Internal, "stdin"},
		{"bad status", bad(func(n *session.Session) { n.Status = "happy" }), errkind.Internal, "status"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateSession(t.Context(), tt.n)
			fails(t, err, tt.kind, tt.text)
		})
	}
	if list, err := s.Sessions(t.Context(), ""); err != nil || cmp.Diff([]session.Session{n}, list) != "" {
		t.Errorf("Sessions gives %v, %v", list, err)
	}
	other := mustCreate(t, s, machine("db"))
	if _, err := s.CreateSession(t.Context(), aSession(other.ID, "echo", 0xb1)); err != nil {
		t.Errorf("the same name in another machine: %v", err)
	}
}

func TestResolveSession(t *testing.T) {
	s, v, _ := withSession(t, options())
	db := mustCreate(t, s, machine("db"))
	for i, name := range []string{"a", "000"} {
		if _, err := s.CreateSession(t.Context(), aSession(v.ID, name, 0xb0+i)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.ResolveSession(t.Context(), v.ID, "000"); err != nil || n.Name != "000" {
		t.Errorf("a name goes before an id: %+v, %v", n, err)
	}
	_, err := s.ResolveSession(t.Context(), v.ID, "0000")
	fails(t, err, errkind.Usage, `"0000" begins the ids of 3 sessions of "web", echo and a among them`)
	_, err = s.ResolveSession(t.Context(), v.ID, "ech")
	fails(t, err, errkind.NotFound, `no session "ech" in "web"; there is echo, 000, a`)
	_, err = s.ResolveSession(t.Context(), db.ID, "echo")
	fails(t, err, errkind.NotFound, `no session "echo" in "db"`)
	_, err = s.ResolveSession(t.Context(), db.ID, "*")
	fails(t, err, errkind.NotFound, `no session "*" in "db"`)
	_, err = s.ResolveSession(t.Context(), "ffffffff", "echo")
	fails(t, err, errkind.NotFound, `no machine`)
}

func TestSessions(t *testing.T) {
	now := t0
	o := options()
	o.Now = func() time.Time { now = now.Add(time.Second); return now }
	s, v, _ := withSession(t, o)
	db := mustCreate(t, s, machine("db"))
	for i, m := range []vm.ID{db.ID, v.ID} {
		if _, err := s.CreateSession(t.Context(), aSession(m, fmt.Sprint("a", i), i)); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[vm.ID]string{"": "[web/echo db/a0 web/a1]", v.ID: "[web/echo web/a1]", db.ID: "[db/a0]", "ffffffff": "[]"} {
		list, err := s.Sessions(t.Context(), id)
		got := []string{}
		for _, n := range list {
			got = append(got, n.VM+"/"+n.Name)
		}
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("Sessions(%q) = %v, %v, want %s", id, got, err, want)
		}
	}
}

func TestChangeSessions(t *testing.T) {
	s, v, n := withSession(t, options())
	if _, err := s.CreateSession(t.Context(), aSession(v.ID, "two", 2)); err != nil {
		t.Fatal(err)
	}
	change := func(seen ...session.Seen) []session.Session {
		t.Helper()
		cs := []session.Change{{ID: session.NewID(), Seen: seen[0]}} // of one that there is not
		for i, seen := range seen {
			cs = append(cs, session.Change{ID: aSession("", "", []int{0xa0, 2}[i]).ID, Seen: seen})
		}
		got, err := s.ChangeSessions(t.Context(), cs)
		if err != nil || len(got) != len(seen) || got[0].ID != n.ID {
			t.Fatalf("ChangeSessions = %v, %v", got, err)
		}
		for _, now := range got {
			again, err := s.ResolveSession(t.Context(), v.ID, now.Name)
			if d := cmp.Diff(now, again); err != nil || d != "" {
				t.Errorf("recorded: %v (-returned +recorded):\n%s", err, d)
			}
		}
		return got
	}
	change(session.Seen{Status: session.Running, GuestPID: 7}, session.Seen{LastError: "why"})
	got := change(session.Seen{Status: session.Exited, ExitCode: 137, ExitSignal: "KILL"}, session.Seen{Status: session.Failed, Stage: "run", Message: "m"})
	if w := (session.Standing{Status: session.Exited, ExitCode: 137, ExitSignal: "KILL", StartedAt: t0, EndedAt: t0}); got[0].Standing != w {
		t.Errorf("%+v, want %+v", got[0].Standing, w)
	}
	ends := got[1].Standing
	if got := change(session.Seen{Status: session.Running}, session.Seen{Status: session.Exited}); got[0].Status != session.Exited || got[1].Standing != ends {
		t.Errorf("what has ended becomes %+v", got)
	}
}

// All of it is recorded, or nothing.
func TestChangeSessionsFails(t *testing.T) {
	o := options()
	boom := errors.New("boom")
	o.TestOnlyFail = func(method string) error {
		if method == "ChangeSessions" || method == "DeleteSession" {
			return boom
		}
		return nil
	}
	s, v, n := withSession(t, o)
	if _, err := s.ChangeSessions(t.Context(), []session.Change{{ID: n.ID, Seen: session.Seen{Status: session.Running}}}); !errors.Is(err, boom) {
		t.Errorf("ChangeSessions = %v", err)
	}
	if err := s.DeleteSession(t.Context(), n.ID); !errors.Is(err, boom) {
		t.Errorf("DeleteSession = %v", err)
	}
	if got, err := s.ResolveSession(t.Context(), v.ID, "echo"); err != nil || cmp.Diff(n, got) != "" {
		t.Errorf("recorded %+v, %v", got, err)
	}
}

func TestDeleteSession(t *testing.T) {
	s, v, n := withSession(t, options())
	for range 2 {
		if err := s.DeleteSession(t.Context(), n.ID); err != nil {
			t.Error(err)
		}
	}
	_, err := s.ResolveSession(t.Context(), v.ID, "echo")
	fails(t, err, errkind.NotFound, "no session")
}

// Sessions go with their machine, and with no other.
func TestSessionsGoWithTheirMachine(t *testing.T) {
	s, v, _ := withSession(t, options())
	db := mustCreate(t, s, machine("db"))
	if _, err := s.CreateSession(t.Context(), aSession(db.ID, "echo", 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Sessions(t.Context(), ""); err != nil || len(list) != 1 || list[0].Machine != db.ID {
		t.Errorf("Sessions gives %v, %v", list, err)
	}
}

func TestCreateSessionConcurrently(t *testing.T) {
	s := newStore(t, options())
	v := mustCreate(t, s, machine("web"))
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.CreateSession(t.Context(), aSession(v.ID, fmt.Sprint("s", i%5), i)) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			fails(t, err, errkind.Conflict, "already")
		}
	}
	if list, err := s.Sessions(t.Context(), v.ID); err != nil || made != 5 || len(list) != 5 {
		t.Errorf("%d made, %d listed, %v", made, len(list), err)
	}
}
