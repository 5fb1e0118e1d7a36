package templatefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/template"
)

func TestPublish(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "templates")
	l := open(t, dir)
	s := begin(t, l, aKey("debian"))
	fill(t, s.Dir())
	if err := os.WriteFile(filepath.Join(s.Dir(), "console.log"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := s.Publish(ctx, aGuest())
	if err != nil {
		t.Fatal(err)
	}
	want := template.Template{
		ID: aKey("debian").ID(), Key: aKey("debian"), Token: aToken, BootID: aBootID, CreatedAt: t0,
		SizeBytes: x.SizeBytes, Dir: x.Dir,
	}
	if x != want {
		t.Errorf("Publish = %+v, want %+v", x, want)
	}
	if x.SizeBytes < 250000 || x.SizeBytes >= ramSize {
		t.Errorf("SizeBytes = %d: it is to count what is on the disk", x.SizeBytes)
	}
	for path, perm := range map[string]os.FileMode{
		x.RAM(): 0o444, x.State(): 0o444, x.Root(): 0o444, x.Dir: 0o755, filepath.Dir(x.Dir): 0o755,
	} {
		if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != perm || !filepath.IsAbs(path) {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, perm)
		}
	}
	if _, err := os.Lstat(filepath.Join(x.Dir, "console.log")); err == nil {
		t.Error("what else was staged was published")
	}
	// Another may be making one by the time of a late Discard.
	if err := l.Delete(ctx, x.ID); err != nil {
		t.Fatal(err)
	}
	other := begin(t, l, aKey("debian"))
	fill(t, other.Dir())
	if err := errors.Join(s.Discard(), s.Discard()); err != nil {
		t.Errorf("Discard after Publish = %v", err)
	}
	if _, err := s.Publish(ctx, aGuest()); err == nil {
		t.Error("Publish again = nil")
	}
	if _, err := other.Publish(ctx, aGuest()); err != nil {
		t.Errorf("the next Publish = %v", err)
	}
	whole(t, l, x.ID)
	// Another process finds the same.
	if got, err := open(t, dir).Get(ctx, x.ID); err != nil || got.Key != want.Key || got.Dir != x.Dir {
		t.Errorf("Get = %+v, %v", got, err)
	}
}

func TestStageIsPrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	l := open(t, t.TempDir())
	s := begin(t, l, aKey("debian"))
	defer s.Discard()
	for p := s.Dir(); p != l.dir; p = filepath.Dir(p) {
		if fi, err := os.Lstat(p); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v, want 0700", p, fi.Mode(), err)
		}
	}
	if left, err := os.ReadDir(s.Dir()); err != nil || len(left) != 0 {
		t.Errorf("Dir holds %v, %v", left, err)
	}
}

// A file that a VMM's user made belongs to that user no longer.
func TestPublishTakesOwnership(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a file away takes root")
	}
	l := open(t, t.TempDir())
	s := begin(t, l, aKey("debian"))
	fill(t, s.Dir())
	if err := os.Chown(filepath.Join(s.Dir(), template.RAMName), 0x70000001, 0x70000001); err != nil {
		t.Fatal(err)
	}
	x, err := s.Publish(context.Background(), aGuest())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(x.RAM(), &st); err != nil || st.Uid != 0 || st.Gid != uint32(os.Getegid()) {
		t.Errorf("ram belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// What is no template is not published, and leaves nothing.
func TestPublishRefuses(t *testing.T) {
	at := func(s *stage, name string) string { return filepath.Join(s.Dir(), name) }
	for _, tt := range []struct {
		name  string
		spoil func(s *stage) error
		guest template.Template
		want  string
	}{
		{"no ram", func(s *stage) error { return os.Remove(at(s, "ram")) }, aGuest(), "ram"},
		{"no state", func(s *stage) error { return os.Remove(at(s, "state")) }, aGuest(), "state"},
		{"no root", func(s *stage) error { return os.Remove(at(s, "root")) }, aGuest(), "root"},
		{"no work disk", func(s *stage) error { return os.Remove(at(s, "work")) }, aGuest(), "work"},
		{"empty ram", func(s *stage) error { return os.Truncate(at(s, "ram"), 0) }, aGuest(), "empty"},
		{"empty root", func(s *stage) error { return os.Truncate(at(s, "root"), 0) }, aGuest(), "empty"},
		{"a link", func(s *stage) error {
			return errors.Join(os.Rename(at(s, "root"), at(s, "r")), os.Symlink("r", at(s, "root")))
		}, aGuest(), "symbolic link"},
		{"two names", func(s *stage) error { return os.Link(at(s, "ram"), at(s, "r")) }, aGuest(), "2 names"},
		{"a directory", func(s *stage) error {
			return errors.Join(os.Remove(at(s, "state")), os.Mkdir(at(s, "state"), 0o700))
		}, aGuest(), "no regular file"},
		{"a FIFO", func(s *stage) error {
			return errors.Join(os.Remove(at(s, "ram")), unix.Mkfifo(at(s, "ram"), 0o600))
		}, aGuest(), "no regular file"},
		{"no token", nil, template.Template{BootID: aBootID}, "token"},
		{"a short token", nil, template.Template{Token: aToken[1:], BootID: aBootID}, "token"},
		{"no boot", nil, template.Template{Token: aToken}, "boot"},
		{"an odd boot", nil, template.Template{Token: aToken, BootID: "../x"}, "boot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := open(t, t.TempDir())
			s := begin(t, l, aKey("debian"))
			fill(t, s.Dir())
			if tt.spoil != nil {
				if err := tt.spoil(s); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Publish(context.Background(), tt.guest); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Publish = %v, want %q in it", err, tt.want)
			}
			if err := s.Discard(); err != nil {
				t.Error(err)
			}
			nothingOf(t, l, aKey("debian"))
		})
	}
}

func TestPublishCancelled(t *testing.T) {
	l := open(t, t.TempDir())
	s := begin(t, l, aKey("debian"))
	fill(t, s.Dir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Publish(ctx, aGuest()); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish = %v", err)
	}
	if err := s.Discard(); err != nil {
		t.Error(err)
	}
	nothingOf(t, l, aKey("debian"))
}

func TestStageOfNoKey(t *testing.T) {
	k := aKey("debian")
	k.CPU = "\xff"
	if _, err := open(t, t.TempDir()).Stage(context.Background(), k); err == nil {
		t.Error("Stage = nil: its record could not be read again")
	}
}

var errDied = errors.New("died")

// A template is there whole or not at all, wherever its maker dies or fails.
func TestMakerDies(t *testing.T) {
	published := map[string]bool{"protect": true}
	for _, step := range []string{"take ram", "take state", "take root", "take work", "write record", "commit", "protect"} {
		for _, dies := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s dies=%v", step, dies), func(t *testing.T) {
				l := open(t, t.TempDir())
				reached := false
				l.testOnlyStep = func(s string) error {
					if s == step {
						reached = true
						return errDied
					}
					return nil
				}
				s := begin(t, l, aKey("debian"))
				fill(t, s.Dir())
				if _, err := s.Publish(context.Background(), aGuest()); !reached || !errors.Is(err, errDied) {
					t.Fatalf("Publish = %v, step reached: %v", err, reached)
				}
				next := l
				if dies {
					s.die()
					next = open(t, l.dir)
				} else if err := s.Discard(); err != nil {
					t.Error(err)
				}
				if published[step] {
					whole(t, next, aKey("debian").ID())
					return
				}
				nothingOf(t, next, aKey("debian"))
			})
		}
	}
}

// Between the last two renames all is there, but nobody sees it. Whoever comes
// next removes it: one who makes, one who prunes, one who opens.
func TestMakerDiesUnseen(t *testing.T) {
	for name, next := range map[string]func(l *Library) error{
		"open":    func(l *Library) error { _, err := Open(l.dir); return err },
		"prune":   func(l *Library) error { _, err := l.Prune(context.Background(), template.PruneOptions{}); return err },
		"discard": func(l *Library) error { return begin(t, l, aKey("debian")).Discard() },
		"make": func(l *Library) error {
			publish(t, l, "debian")
			return l.Delete(context.Background(), aKey("debian").ID())
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, t.TempDir())
			x := publish(t, l, "debian")
			if err := os.Remove(filepath.Join(filepath.Dir(x.Dir), "current")); err != nil {
				t.Fatal(err)
			}
			if list, err := l.List(context.Background()); err != nil || len(list) != 0 {
				t.Errorf("List = %+v, %v", list, err)
			}
			if err := next(l); err != nil {
				t.Error(err)
			}
			nothingOf(t, l, aKey("debian"))
		})
	}
}

// Who fails there removes it.
func TestMakerFailsUnseen(t *testing.T) {
	l := open(t, t.TempDir())
	l.testOnlyStep = func(step string) error {
		if step != "protect" {
			return nil
		}
		return errors.Join(errDied, os.Remove(filepath.Join(l.dir, aKey("debian").ID(), "current")))
	}
	s := begin(t, l, aKey("debian"))
	fill(t, s.Dir())
	if _, err := s.Publish(context.Background(), aGuest()); !errors.Is(err, errDied) {
		t.Errorf("Publish = %v", err)
	}
	if err := s.Discard(); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil || len(entries) != 2 { // .lock and .staging
		t.Errorf("%v is left, %v", entries, err)
	}
	nothingOf(t, l, aKey("debian"))
}

func TestStageConflicts(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	one, two := open(t, dir), open(t, dir)
	s := begin(t, one, aKey("debian"))
	for _, l := range []*Library{one, two} {
		if _, err := l.Stage(ctx, aKey("debian")); errkind.Of(err) != errkind.Conflict {
			t.Errorf("Stage while it is made = %v", err)
		}
		if err := l.Delete(ctx, aKey("debian").ID()); errkind.Of(err) != errkind.NotFound {
			t.Errorf("Delete while it is made = %v", err)
		}
		if _, err := l.Prune(ctx, template.PruneOptions{UnusedFor: 1}); err != nil {
			t.Errorf("Prune while it is made = %v", err)
		}
	}
	if err := begin(t, two, aKey("other")).Discard(); err != nil {
		t.Errorf("another key: %v", err)
	}
	fill(t, s.Dir())
	if _, err := s.Publish(ctx, aGuest()); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Stage(ctx, aKey("debian")); errkind.Of(err) != errkind.Conflict {
		t.Errorf("Stage of one that is there = %v", err)
	}
	whole(t, two, aKey("debian").ID())
}

// The lock goes with the process that holds it, however that ends.
func TestStageOfDeadProcess(t *testing.T) {
	l := open(t, t.TempDir())
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEMPLATEFS_TEST_HOLD="+l.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "staged\n" {
		t.Errorf("the other process said %q, %v", line, err)
	}
	if _, err := l.Stage(context.Background(), aKey("debian")); errkind.Of(err) != errkind.Conflict {
		t.Errorf("Stage while another process makes it = %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	if _, err := l.Prune(context.Background(), template.PruneOptions{}); err != nil {
		t.Error(err)
	}
	nothingOf(t, l, aKey("debian"))
}

// hold is another process, which makes a template until it is killed.
func hold(dir string) {
	l, err := Open(dir)
	if err == nil {
		_, err = l.Stage(context.Background(), aKey("debian"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("staged")
	select {}
}

// Many make, use and remove one template by two libraries. It is never there
// in part, and no two make it at once.
func TestTwoLibraries(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	id := aKey("debian").ID()
	var makers, made atomic.Int32
	makeOne := func(l *Library) error {
		s, err := l.Stage(ctx, aKey("debian"))
		if errkind.Of(err) == errkind.Conflict {
			return nil
		}
		if err != nil {
			return err
		}
		if makers.Add(1) != 1 {
			t.Error("two make it at once")
		}
		fill(t, s.Dir())
		makers.Add(-1)
		if _, err := s.Publish(ctx, aGuest()); err != nil {
			return errors.Join(err, s.Discard())
		}
		made.Add(1)
		return s.Discard()
	}
	absent := func(err error) error {
		if errkind.Of(err) == errkind.NotFound {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	for _, l := range []*Library{open(t, dir), open(t, dir)} {
		for name, do := range map[string]func() error{
			"make":   func() error { return makeOne(l) },
			"make 2": func() error { return makeOne(l) },
			"use":    func() error { _, err := l.Use(ctx, id); return absent(err) },
			"verify": func() error { return absent(l.Verify(ctx, id)) },
			"list":   func() error { _, err := l.List(ctx); return err },
			"delete": func() error { return absent(l.Delete(ctx, id)) },
			"prune":  func() error { _, err := l.Prune(ctx, template.PruneOptions{UnusedFor: 1}); return err },
		} {
			wg.Go(func() {
				for range 20 {
					if err := do(); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if made.Load() == 0 {
		t.Error("none was made")
	}
	l := open(t, dir)
	if err := absent(l.Delete(ctx, id)); err != nil {
		t.Error(err)
	}
	nothingOf(t, l, aKey("debian"))
}
