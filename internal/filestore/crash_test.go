package filestore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

var errDied = errors.New("died")

// dieReplacing replaces version 01 of a, "old", by "new", and dies at the
// exchange, which is done by with; then it opens the store as whoever comes
// next.
func dieReplacing(t *testing.T, with func(g *Stage, a, b string) error) *Store {
	t.Helper()
	s := open(t)
	add(t, s, "a", "01", "old")
	unlock := lock(t, s, "a")
	g, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.Dir, "data"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.exchange = func(a, b string) error { return with(g, a, b) }
	if err := g.Commit("01"); !errors.Is(err, errDied) {
		t.Fatalf("Commit = %v, want %v", err, errDied)
	}
	unlock() // as the kernel does when a process dies
	next, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// A version is there whole, the old or the new, wherever its replacement dies.
func TestReplaceDies(t *testing.T) {
	for _, tt := range []struct {
		name string
		with func(g *Stage, a, b string) error
		want string
	}{
		{"before the exchange", func(*Stage, string, string) error { return errDied }, "old"},
		{"after the exchange", func(_ *Stage, a, b string) error {
			return errors.Join(exchange(a, b), errDied)
		}, "new"},
		{"between two renames", func(g *Stage, _, b string) error {
			return errors.Join(os.Rename(b, filepath.Join(g.top, aside+"01")), errDied)
		}, "old"},
		{"after two renames", func(g *Stage, _, _ string) error {
			return errors.Join(g.placeAside("01"), errDied)
		}, "new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := dieReplacing(t, tt.with)
			got, err := os.ReadFile(filepath.Join(s.dir, "a", current, "data"))
			if err != nil || string(got) != tt.want {
				t.Errorf("data = %q, %v, want %q", got, err, tt.want)
			}
			stagingIsEmpty(t, s)
		})
	}
}

// Who makes the next version puts back what was moved aside, too, unless all
// of that name was deleted.
func TestStagePutsBack(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		s := open(t)
		add(t, s, "a", "01", "old")
		unlock := lock(t, s, "a")
		g, err := s.Stage("a")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(s.Dir("a", "01"), filepath.Join(g.top, aside+"01")); err != nil {
			t.Fatal(err)
		}
		if deleted {
			if err := s.DeleteAll("a"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Stage("a"); err != nil {
			t.Errorf("deleted %v: Stage = %v", deleted, err)
		}
		unlock()
		if _, err := os.Stat(s.Dir("a", "01")); (err != nil) != deleted {
			t.Errorf("deleted %v: version 01: %v", deleted, err)
		}
	}
}

// Only a file system that cannot exchange gets two renames.
func TestReplaceFallsBack(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{unix.EINVAL, "new"},
		{unix.ENOSYS, "new"},
		{unix.EACCES, "old"},
		{unix.EIO, "old"},
	} {
		s := open(t)
		add(t, s, "a", "01", "old")
		s.exchange = func(string, string) error { return tt.err }
		unlock := lock(t, s, "a")
		g, err := s.Stage("a")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(g.Dir, "data"), []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		err = g.Commit("01")
		if tt.want == "new" && err != nil || tt.want == "old" && !errors.Is(err, tt.err) {
			t.Errorf("%v: Commit = %v", tt.err, err)
		}
		if err := g.Discard(); err != nil {
			t.Error(err)
		}
		unlock()
		got, err := os.ReadFile(filepath.Join(s.dir, "a", current, "data"))
		if err != nil || string(got) != tt.want {
			t.Errorf("%v: data = %q, %v, want %q", tt.err, got, err, tt.want)
		}
		stagingIsEmpty(t, s)
	}
}

// Those who read take no lock and never miss a version that is replaced.
func TestReplaceUnderReaders(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "old")
	done := make(chan struct{})
	missed := make(chan error, 1)
	go func() {
		defer close(missed)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := os.Stat(filepath.Join(s.dir, "a", current)); err != nil {
				missed <- err
				return
			}
		}
	}()
	for range 50 {
		add(t, s, "a", "01", "new")
	}
	close(done)
	if err := <-missed; err != nil {
		t.Error(err)
	}
}

// Whoever dies deleting all of a name leaves nothing that is seen, or kept for
// ever.
func TestDeleteAllDies(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "one")
	add(t, s, "a", "02", "two")
	add(t, s, "b", "01", "one")
	unlock := lock(t, s, "a")
	trash, err := s.hide("a", filepath.Join(s.dir, "a")) // and dies
	if err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"b"}) {
		t.Errorf("Names = %q, %v, want b", names, err)
	}
	if ids, err := s.Versions("a"); err != nil || len(ids) != 0 {
		t.Errorf("Versions = %q, %v, want none", ids, err)
	}
	if _, err := Open(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(trash); err != nil {
		t.Errorf("Open removed what another is removing: %v", err)
	}
	unlock() // as the kernel does when a process dies
	if _, err := Open(s.dir); err != nil {
		t.Fatal(err)
	}
	stagingIsEmpty(t, s)
}

// Deleting leaves alone what its caller is making under the same lock.
func TestDeleteKeepsStage(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "one")
	add(t, s, "a", "02", "two")
	defer lock(t, s, "a")()
	g, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Delete("a", "01"), s.Delete("a", "01"), s.DeleteAll("a")); err != nil {
		t.Fatal(err)
	}
	if err := g.Commit("03"); err != nil {
		t.Error(err)
	}
	if ids, err := s.Versions("a"); err != nil || !slices.Equal(ids, []string{"03"}) {
		t.Errorf("Versions = %q, %v, want 03", ids, err)
	}
	stagingIsEmpty(t, s)
}

func stagingIsEmpty(t *testing.T, s *Store) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(s.dir, staging))
	if err != nil || len(left) != 0 {
		t.Errorf("staging holds %v, %v", left, err)
	}
}
