package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

type record struct {
	Name  string
	Files []File
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lock(t *testing.T, s *Store, name string) (unlock func()) {
	t.Helper()
	unlock, err := s.Lock(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

// add adds a version that holds one file.
func add(t *testing.T, s *Store, name, id, content string) {
	t.Helper()
	defer lock(t, s, name)()
	g, err := s.Stage(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.Dir, "data"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := g.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WriteManifest(record{name, files}); err != nil {
		t.Fatal(err)
	}
	if err := g.Commit(id); err != nil {
		t.Fatal(err)
	}
}

func TestVersions(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s := open(t)
	if _, err := s.Current("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Current of nothing = %v", err)
	}
	add(t, s, "a", "01", "one")
	add(t, s, "a", "02", "two")
	add(t, s, "b", "01", "one")
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("Names = %q, %v", names, err)
	}
	if id, err := s.Current("a"); err != nil || id != "02" {
		t.Errorf("Current = %q, %v, want 02", id, err)
	}
	if ids, err := s.Versions("a"); err != nil || !slices.Equal(ids, []string{"01", "02"}) {
		t.Errorf("Versions = %q, %v", ids, err)
	}
	fi, err := os.Stat(filepath.Join(s.Dir("a", "01"), "data"))
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("data has mode %v, %v, want 0644", fi.Mode(), err)
	}
	if fi, err := os.Stat(s.Dir("a", "01")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("version has mode %v, %v, want 0755", fi.Mode(), err)
	}
	unlock := lock(t, s, "a")
	if err := s.Keep("a", "02"); err != nil {
		t.Fatal(err)
	}
	if ids, err := s.Versions("a"); err != nil || !slices.Equal(ids, []string{"02"}) {
		t.Errorf("Versions after Keep = %q, %v", ids, err)
	}
	if err := errors.Join(s.DeleteAll("a"), s.DeleteAll("a")); err != nil {
		t.Fatal(err)
	}
	unlock()
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"b"}) {
		t.Errorf("Names after DeleteAll = %q, %v", names, err)
	}
	left, err := os.ReadDir(filepath.Join(s.dir, staging))
	if err != nil || len(left) != 0 {
		t.Errorf("staging holds %v, %v", left, err)
	}
}

// A version of an id that is there is replaced, for the one there is damaged.
func TestCommitAgain(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "damaged")
	add(t, s, "a", "01", "whole")
	got, err := os.ReadFile(filepath.Join(s.Dir("a", "01"), "data"))
	if err != nil || string(got) != "whole" {
		t.Errorf("data = %q, %v", got, err)
	}
}

func TestDiscard(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "one")
	unlock := lock(t, s, "a")
	defer unlock()
	g, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.Tmp, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Discard(), g.Discard()); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Current("a"); err != nil || id != "01" {
		t.Errorf("Current = %q, %v", id, err)
	}
	if _, err := os.Lstat(g.top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stage is left: %v", err)
	}
}

// What a maker left that died is removed by who opens the store next, but not
// what one that lives is at.
func TestOpenSweeps(t *testing.T) {
	s := open(t)
	unlockDead := lock(t, s, "dead")
	defer lock(t, s, "alive")()
	for _, name := range []string{"dead", "alive"} {
		if _, err := s.Stage(name); err != nil {
			t.Fatal(err)
		}
	}
	unlockDead() // as the kernel does when a process dies
	if _, err := Open(s.dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(s.dir, staging))
	if err != nil || len(left) != 1 || left[0].Name() != "alive" {
		t.Errorf("staging holds %v, %v, want alive", left, err)
	}
}

func TestLockExcludes(t *testing.T) {
	s := open(t)
	other, err := Open(s.dir) // as another process would
	if err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, s, "a")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := other.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock of what is held = %v, want canceled", err)
	}
	if _, ok, err := other.TryLock("a"); ok || err != nil {
		t.Errorf("TryLock of what is held = %v, %v", ok, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { lock(t, other, "a")() })
	unlock()
	wg.Wait()
	if unlock, ok, err := other.TryLock("a"); !ok || err != nil {
		t.Errorf("TryLock = %v, %v", ok, err)
	} else {
		unlock()
	}
}

func TestManifest(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "one")
	path := filepath.Join(s.Dir("a", "01"), manifestName)
	var r record
	if err := s.ReadManifest("a", "01", &r); err != nil || r.Name != "a" || len(r.Files) != 1 || r.Files[0] != (File{"data", 3}) {
		t.Fatalf("ReadManifest = %+v, %v", r, err)
	}
	if err := s.CheckFiles("a", "01", r.Files); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		name string
		f    File
	}{
		{"another size", File{"data", 4}},
		{"missing", File{"none", 0}},
		{"outside", File{"../../b", 0}},
		{"absolute", File{"/etc/passwd", 0}},
		{"a directory", File{".", 4096}},
	} {
		if err := s.CheckFiles("a", "01", []File{tt.f}); err == nil {
			t.Errorf("CheckFiles, %s: no error", tt.name)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", string(whole[:len(whole)/2]), string(whole) + "{}", strings.Repeat(" ", maxManifest+1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.ReadManifest("a", "01", &r); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("ReadManifest of %.20q = %v, want an error that names the file", text, err)
		}
	}
}

func TestNames(t *testing.T) {
	s := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "A", "-a", "a-", "a.b", strings.Repeat("a", 64), ".staging", "ä", "a\n"} {
		if err := CheckName(name); errkind.Of(err) != errkind.Usage {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
		if _, err := s.Current(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Current(%q) = %v", name, err)
		}
		if ids, err := s.Versions(name); ids != nil || err != nil {
			t.Errorf("Versions(%q) = %v, %v", name, ids, err)
		}
		if _, err := s.Lock(context.Background(), name); errkind.Of(err) != errkind.Usage {
			t.Errorf("Lock(%q) = %v", name, err)
		}
	}
}

// A link that somebody bent is an error, and can be deleted.
func TestBentLink(t *testing.T) {
	s := open(t)
	add(t, s, "a", "01", "one")
	link := filepath.Join(s.dir, "a", current)
	if err := errors.Join(os.Remove(link), os.Symlink("../../etc", link)); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Current("a"); err == nil {
		t.Errorf("Current = %q", id)
	}
	if names, err := s.Names(); err != nil || len(names) != 1 {
		t.Errorf("Names = %q, %v", names, err)
	}
	defer lock(t, s, "a")()
	if err := s.DeleteAll("a"); err != nil {
		t.Error(err)
	}
}
