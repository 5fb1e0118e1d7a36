package session_test

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/session"
	"banger/internal/vm"
)

// What the guest says is recorded, and said once more changes nothing.
func TestLook(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	b.setFail(func(method string) error {
		if method == "ChangeSessions" {
			t.Error("written although nothing has changed")
		}
		return nil
	})
	if got := b.show("one"); got.Standing != s.Standing {
		t.Errorf("shown %+v, want %+v", got.Standing, s.Standing)
	}
	b.setFail(nil)
	b.guest().End(string(s.ID), 143, "TERM")
	got := b.show("one")
	if got.Status != session.Exited || got.ExitCode != 143 || got.ExitSignal != "TERM" || got.EndedAt.IsZero() || got.GuestPID != 0 {
		t.Errorf("shown %+v", got)
	}
	b.guest().Forget(string(s.ID)) // what has ended is asked for no more
	if again := b.recorded("one"); again.Standing != got.Standing || b.show("one").Standing != got.Standing {
		t.Errorf("recorded %+v, want %+v", again.Standing, got.Standing)
	}
}

func TestForgottenByTheGuest(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	b.guest().Forget(string(s.ID))
	if got := b.show("one"); got.Status != session.Failed || got.FailedStage != "run" || got.FailedMessage != "the guest knows nothing of it" {
		t.Errorf("shown %+v", got)
	}
}

// A machine's many sessions take one call.
func TestListManySessions(t *testing.T) {
	b := newBed(t)
	for i := range 200 {
		_, err := b.store.CreateSession(t.Context(), session.Session{
			ID: session.ID(fmt.Sprintf("%032x", i)), Machine: b.web.ID, Name: fmt.Sprint("s", i), Command: "cat", User: "root",
			Stdin: "closed", LogLimit: 1, Standing: session.Standing{Status: session.Starting},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.guest().Put(fmt.Sprintf("%032x", i))
	}
	list, err := b.List(t.Context(), "web", session.Filter{Statuses: []string{"running"}})
	if err != nil || len(list) != 200 || list[0].Name != "s0" {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	b.Close() // ends what goes on without a caller, which asks once as well
	if n := b.guest().Calls("ListSessions"); n > 2 {
		t.Errorf("%d calls", n)
	}
}

func TestListFilters(t *testing.T) {
	b := newBed(t)
	b.machine("db")
	b.start("one", session.Closed, "a", "b")
	two := b.start("two", session.Closed, "a")
	if _, err := b.Start(t.Context(), "db", session.Request{Name: "one", Argv: []string{"cat"}, Tags: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	b.guest().End(string(two.ID), 0, "")
	tests := []struct {
		vm   string
		f    session.Filter
		want string
	}{
		{"", session.Filter{}, "web/one web/two db/one"},
		{"web", session.Filter{}, "web/one web/two"},
		{"", session.Filter{Statuses: []string{"exited"}}, "web/two"},
		{"", session.Filter{Statuses: []string{"exited", "running"}, Tags: []string{"a"}}, "web/one web/two"},
		{"", session.Filter{Tags: []string{"b", "a"}}, "web/one"},
		{"db", session.Filter{Tags: []string{"c"}}, ""},
	}
	for _, tt := range tests {
		list, err := b.List(t.Context(), tt.vm, tt.f)
		var got []string
		for _, s := range list {
			got = append(got, s.VM+"/"+s.Name)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("List(%q, %+v) = %v, %v, want %s", tt.vm, tt.f, got, err, tt.want)
		}
	}
	_, err := b.List(t.Context(), "web", session.Filter{Statuses: []string{"happy"}})
	refused(t, err, errkind.Usage, `"happy" is no status of a session; there is starting, running, stopping, exited, failed`, "")
	_, err = b.Show(t.Context(), "web", "tow")
	refused(t, err, errkind.NotFound, `no session "tow" in "web"; there is two, one`, "banger vm session list web")
}

// A silent agent hangs no list, and the others are looked at.
func TestSilentAgent(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	db := b.machine("db")
	two, err := b.Start(t.Context(), "db", session.Request{Name: "two", Argv: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	b.machines.guest(db.ID).End(string(two.ID), 7, "")
	b.SetPatience(2 * time.Second)
	b.guest().SetHook(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	list, err := b.List(t.Context(), "", session.Filter{})
	if err != nil || len(list) != 2 || list[0].Status != session.Running || list[0].GuestPID != s.GuestPID ||
		list[0].LastError != `the agent of "web" did not answer within 2s` {
		t.Errorf("List = %+v, %v", list, err)
	}
	if list[1].Status != session.Exited || list[1].ExitCode != 7 {
		t.Errorf("the other: %+v", list[1])
	}
	b.guest().SetHook(nil)
	b.restart()
	if got := b.show("one"); got.Standing != s.Standing {
		t.Errorf("shown %+v, want %+v", got.Standing, s.Standing)
	}
}

func TestHostileGuest(t *testing.T) {
	b := newBed(t)
	b.start("one", session.Closed)
	b.guest().SetMangle(func(st *wire.SessionStatus) { st.State = "happy\x1b[2J" })
	if got := b.show("one"); got.Status != session.Running || got.LastError != `the guest tells of a status "happy\x1b[2J", which there is none of` {
		t.Errorf("shown %+v", got)
	}
	b.guest().SetMangle(func(st *wire.SessionStatus) { st.Id = strings.Repeat("f", 32) }) // of which nobody asked
	if got := b.show("one"); got.Status != session.Failed {
		t.Errorf("shown %+v", got)
	}
	if list, err := b.store.Sessions(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("recorded %v, %v", list, err)
	}
	two := b.start("two", session.Closed)
	b.guest().SetMangle(func(st *wire.SessionStatus) {
		st.State, st.Message, st.Stage = "failed", strings.Repeat("\x1b]0;x\a", 1<<14), "x"
		st.StartedNs, st.EndedNs = math.MaxInt64, math.MinInt64
	})
	got := b.show("two")
	if got.Status != session.Failed || len(got.FailedMessage) > 1100 || strings.Contains(got.FailedMessage, "\x1b") || got.StartedAt != two.StartedAt || got.EndedAt.After(time.Now()) {
		t.Errorf("shown %+v", got)
	}
}

// The end of a machine ends its sessions; one that had exited before stands.
func TestMachineStopped(t *testing.T) {
	b := newBed(t)
	names := []string{"gone", "exited", "still-running", "garbled", "unreadable"}
	ids := make(map[string]session.ID)
	for _, n := range names {
		ids[n] = b.start(n, session.Closed).ID
	}
	b.disks.status = map[session.ID]*wire.SessionStatus{
		ids["exited"]:        {State: "exited", Code: 3},
		ids["still-running"]: {State: "running", Pid: 5},
		ids["garbled"]:       {State: "exited", Code: 1 << 20},
	}
	b.state(b.web, vm.Stopping)
	if s := b.show("gone"); s.Status != session.Running || s.LastError != `vm "web" is stopping` {
		t.Errorf("while it stops: %+v", s)
	}
	b.machines.end(b.web.ID)
	b.state(b.web, vm.Stopped)
	list, err := b.List(t.Context(), "web", session.Filter{})
	if err != nil || len(list) != len(names) {
		t.Fatalf("List = %v, %v", list, err)
	}
	for _, s := range list {
		want := session.Standing{Status: session.Failed, FailedStage: "run", FailedMessage: "machine stopped", StartedAt: s.StartedAt, EndedAt: s.EndedAt}
		if s.Name == "exited" {
			want = session.Standing{Status: session.Exited, ExitCode: 3, StartedAt: s.StartedAt, EndedAt: s.EndedAt}
		}
		if s.Standing != want || s.EndedAt.IsZero() || b.recorded(s.Name).Standing != want {
			t.Errorf("%s: %+v, want %+v", s.Name, s.Standing, want)
		}
	}
	// A new start makes none of them look alive.
	v := b.up(b.web)
	for _, id := range ids {
		b.machines.guest(v.ID).Put(string(id))
	}
	if s := b.show("gone"); s.Status != session.Failed {
		t.Errorf("after a start: %+v", s)
	}
	eventually(t, "that what runs although it has ended is killed", func() bool {
		return !slices.ContainsFunc(b.guest().IDs(), func(id string) bool { return b.guest().State(id) == "running" })
	})
}

// A disk that cannot be read is named; one that takes too long is read later.
func TestMachineStoppedBadDisk(t *testing.T) {
	b := newBed(t)
	b.start("one", session.Closed)
	b.down(b.web)
	b.SetPatience(50 * time.Millisecond)
	b.disks.wait = true
	if s := b.show("one"); s.Status != session.Running || s.LastError != `the work disk of "web" could not be read within 50ms` {
		t.Errorf("shown %+v", s)
	}
	b.disks.wait, b.disks.err = false, fmt.Errorf("%w: bad magic\x1b", disk.ErrDamaged)
	b.restart()
	if s := b.show("one"); s.Status != session.Failed || s.FailedMessage != "machine stopped" || s.LastError != `read its status on the work disk of "web": damaged: bad magic` {
		t.Errorf("shown %+v", s)
	}
}

// On a full disk sessions can be looked at, and what is seen is told.
func TestLookUnrecorded(t *testing.T) {
	b := newBed(t)
	s := b.start("one", session.Closed)
	b.guest().End(string(s.ID), 4, "")
	b.setFail(func(method string) error {
		if method == "ChangeSessions" {
			return fs.ErrInvalid
		}
		return nil
	})
	if got := b.show("one"); got.Status != session.Exited || got.ExitCode != 4 || !strings.Contains(got.LastError, "not recorded") {
		t.Errorf("shown %+v", got)
	}
	b.setFail(nil)
	if got := b.show("one"); got.Status != session.Exited || got.LastError != "" {
		t.Errorf("shown %+v", got)
	}
}

// Sessions that no record tells of are removed, once after each start.
func TestSweep(t *testing.T) {
	b := newBed(t)
	one := b.start("one", session.Closed)
	b.guest().Put(strings.Repeat("a", 32))
	b.guest().Put("../../etc")
	if _, err := b.List(t.Context(), "", session.Filter{}); err != nil {
		t.Fatal(err)
	}
	left := []string{"../../etc", string(one.ID)}
	eventually(t, "that what nobody knows is removed", func() bool { return slices.Equal(b.guest().IDs(), left) })
	b.guest().Put(strings.Repeat("b", 32))
	b.show("one")
	b.restart()
	b.show("one")
	eventually(t, "that the next daemon looks too", func() bool { return slices.Equal(b.guest().IDs(), left) })
}
