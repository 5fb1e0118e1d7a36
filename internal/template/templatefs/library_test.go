package templatefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/template"
)

func TestUnknown(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	publish(t, l, "debian")
	for _, id := range []string{"", "x", "../" + aKey("debian").ID(), ".staging", ".lock", aKey("other").ID(), strings.Repeat("a", 1000)} {
		_, get := l.Get(ctx, id)
		_, use := l.Use(ctx, id)
		for what, err := range map[string]error{
			"Get": get, "Use": use, "Verify": l.Verify(ctx, id), "SetAside": l.SetAside(ctx, id, "x"), "Delete": l.Delete(ctx, id),
		} {
			if errkind.Of(err) != errkind.NotFound || len(errkind.Hints(err)) != 1 || len(err.Error()) > 600 {
				t.Errorf("%s(%.40q) = %v, %q", what, id, err, errkind.Hints(err))
			}
		}
	}
}

func TestUseIsNoted(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	x := publish(t, l, "debian")
	if got, err := l.Get(ctx, x.ID); err != nil || !got.UsedAt.IsZero() {
		t.Errorf("before: UsedAt = %v, %v", got.UsedAt, err)
	}
	for _, hours := range []time.Duration{1, 5} {
		at := t0.Add(hours * time.Hour)
		l.now = func() time.Time { return at }
		if got, err := l.Use(ctx, x.ID); err != nil || !got.UsedAt.Equal(at) {
			t.Errorf("Use: UsedAt = %v, %v, want %v", got.UsedAt, err, at)
		}
		if got, err := open(t, l.dir).Get(ctx, x.ID); err != nil || !got.UsedAt.Equal(at) || !got.CreatedAt.Equal(t0) {
			t.Errorf("Get: UsedAt = %v, %v, want %v", got.UsedAt, err, at)
		}
	}
}

// garble changes one byte of a file.
func garble(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// manifestOf is where the record of a template stands.
func manifestOf(x template.Template) string { return filepath.Join(x.Dir, "manifest.json") }

// edit replaces text in a record.
func edit(old, new string) func(testing.TB, template.Template) {
	return func(t testing.TB, x template.Template) {
		data, err := os.ReadFile(manifestOf(x))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(data), old) != 1 {
			t.Fatalf("the record has not one %s: %s", old, data)
		}
		write(strings.Replace(string(data), old, new, 1))(t, x)
	}
}

// format is what says a record's format.
func format(n int) string { return fmt.Sprintf(`"format": %d`, n) }

// write replaces a record.
func write(text string) func(testing.TB, template.Template) {
	return func(t testing.TB, x template.Template) {
		// A new file, for ext4 waits for the disk when one is emptied.
		if err := os.RemoveAll(manifestOf(x)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(manifestOf(x), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// try makes a test of what may fail.
func try(f func(template.Template) error) func(testing.TB, template.Template) {
	return func(t testing.TB, x template.Template) {
		if err := f(x); err != nil {
			t.Fatal(err)
		}
	}
}

// What is damaged is never used, is listed, stays where it is while something
// stands on it, and makes room for another when nothing does.
func TestDamaged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(testing.TB, template.Template)
		want  string // in Damaged
		found string // what finds it first: look, use or verify
	}{
		{"short ram", try(func(x template.Template) error { return os.Truncate(x.RAM(), ramSize-1) }), "ram", "look"},
		{"long ram", try(func(x template.Template) error { return os.Truncate(x.RAM(), ramSize+1) }), "ram", "look"},
		{"no ram", try(func(x template.Template) error { return os.Remove(x.RAM()) }), "ram", "look"},
		{"ram is a link", try(func(x template.Template) error {
			return errors.Join(os.Remove(x.RAM()), os.Symlink(x.Root(), x.RAM()))
		}), "ram", "look"},
		{"short state", try(func(x template.Template) error { return os.Truncate(x.State(), 3) }), "state", "look"},
		{"no state", try(func(x template.Template) error { return os.Remove(x.State()) }), "state", "look"},
		{"no root", try(func(x template.Template) error { return os.Remove(x.Root()) }), "root", "look"},
		{"no work disk", try(func(x template.Template) error { return os.Remove(x.Work()) }), "work", "look"},
		{"garbled state", func(t testing.TB, x template.Template) { garble(t, x.State(), 3) }, "state", "use"},
		{"a byte of ram", func(t testing.TB, x template.Template) { garble(t, x.RAM(), ramSize/2+2) }, "ram", "verify"},
		{"a byte in a hole of ram", func(t testing.TB, x template.Template) { garble(t, x.RAM(), ramSize-1) }, "ram", "verify"},
		{"a byte of root", func(t testing.TB, x template.Template) { garble(t, x.Root(), 249999) }, "root", "verify"},
		{"no record", try(func(x template.Template) error { return os.Remove(manifestOf(x)) }), "manifest", "look"},
		{"record is a directory", try(func(x template.Template) error {
			return errors.Join(os.Remove(manifestOf(x)), os.Mkdir(manifestOf(x), 0o755))
		}), "manifest", "look"},
		{"empty record", write(""), "damaged", "look"},
		{"garbled record", write(`{"format":`), "damaged", "look"},
		{"record and more", edit("\n}\n", "\n}{}\n"), "after its end", "look"},
		{"large record", write(strings.Repeat(" ", 5<<20)), "over", "look"},
		{"later record", edit(format(template.Format), format(template.Format+1)), fmt.Sprint("format ", template.Format+1), "look"},
		{"no format", edit(`"format": `, `"form": `), "format 0", "look"},
		{"another's record", edit(aKey("debian").ID(), aKey("other").ID()), "another", "look"},
		{"another key", edit(`"vcpus": 2`, `"vcpus": 3`), "another", "look"},
		{"no token", edit(aToken, ""), "token", "look"},
		{"no boot", edit(aBootID, ""), "boot", "look"},
		{"odd time", edit(`"created_at": "2026`, `"created_at": "1026`), "year", "look"},
		{"another file", edit(`"name": "ram"`, `"name": "../ram"`), "ram", "look"},
		{"another size", edit(`"size_bytes": 7`, `"size_bytes": 8`), "state", "look"},
		{"another sum", try(func(x template.Template) error {
			data, err := os.ReadFile(manifestOf(x))
			if err != nil {
				return err
			}
			garbled := regexp.MustCompile(`"sum": "[0-9a-f]`).ReplaceAll(data, []byte(`"sum": "x`))
			return os.WriteFile(manifestOf(x), garbled, 0o644)
		}), "another", "look"},
		{"no size", edit(`"size_bytes": 7`, `"size_bytes": 0`), "state", "look"},
		{"a number out of bounds", edit(`"size_bytes": 7`, `"size_bytes": `+strings.Repeat("9", 10000)), "number", "look"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir())
			publish(t, l, "other")
			x := publish(t, l, "debian")
			for _, path := range []string{x.RAM(), x.State(), x.Root()} {
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tt.spoil(t, x)
			damagedIsFound(t, l, x, tt.found, tt.want)
			damagedGoes(t, l, x)
		})
	}
}

// damagedIsFound fails unless a template's damage is found by looking, using or
// verifying, and not before.
func damagedIsFound(t *testing.T, l *Library, x template.Template, by, want string) {
	t.Helper()
	ctx := context.Background()
	got, err := l.Get(ctx, x.ID)
	if err != nil || got.ID != x.ID || got.Dir != x.Dir || (got.Damaged != "") != (by == "look") || len(got.Damaged) > 500 {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if by == "look" && !strings.Contains(got.Damaged, want) {
		t.Errorf("Damaged = %q, want %q in it", got.Damaged, want)
	}
	list, err := l.List(ctx)
	if i := slices.Index(list, got); err != nil || len(list) != 2 || i < 0 {
		t.Errorf("List = %+v, %v, want %+v in it", list, err, got)
	}
	_, use := l.Use(ctx, x.ID)
	if errors.Is(use, template.ErrDamaged) != (by != "verify") || use != nil && by == "verify" {
		t.Errorf("Use = %v", use)
	}
	verify := l.Verify(ctx, x.ID)
	if !errors.Is(verify, template.ErrDamaged) || !strings.Contains(verify.Error(), want) {
		t.Errorf("Verify = %v, want %q in it", verify, want)
	}
	if hints := errkind.Hints(verify); len(hints) != 1 || hints[0] != "banger template delete "+x.ID {
		t.Errorf("hints %q", hints)
	}
	whole(t, l, aKey("other").ID())
}

// damagedGoes fails unless a template that is set aside goes when it may.
func damagedGoes(t *testing.T, l *Library, x template.Template) {
	t.Helper()
	ctx := context.Background()
	if err := l.SetAside(ctx, x.ID, "it did not\nstart"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Use(ctx, x.ID); !errors.Is(err, template.ErrDamaged) || !strings.Contains(err.Error(), "it did not start") {
		t.Errorf("Use of one set aside = %v", err)
	}
	if _, err := l.Stage(ctx, x.Key); errkind.Of(err) != errkind.Conflict {
		t.Errorf("Stage beside a damaged one = %v", err)
	}
	if removed, err := l.Prune(ctx, template.PruneOptions{Keep: map[string]bool{x.ID: true}}); err != nil || len(removed) != 0 {
		t.Errorf("Prune of what is in use = %+v, %v", removed, err)
	}
	if got, err := l.Get(ctx, x.ID); err != nil || got.Root() != x.Root() {
		t.Errorf("Get of one in use = %+v, %v", got, err)
	}
	removed, err := l.Prune(ctx, template.PruneOptions{})
	if err != nil || len(removed) != 1 || removed[0].ID != x.ID {
		t.Errorf("Prune = %+v, %v", removed, err)
	}
	publish(t, l, "debian")
	whole(t, l, x.ID)
}

func TestSetAside(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	x := publish(t, l, "debian")
	for _, why := range []string{strings.Repeat("it did not start. ", 100), "another reason"} {
		if err := l.SetAside(ctx, x.ID, why); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, l.dir).Get(ctx, x.ID)
	if err != nil || !strings.HasPrefix(got.Damaged, "it did not start. it") || len(got.Damaged) > 500 || got.Key != x.Key {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if err := l.Verify(ctx, x.ID); !errors.Is(err, template.ErrDamaged) {
		t.Errorf("Verify = %v", err)
	}
	y := publish(t, l, "other")
	if err := l.SetAside(ctx, y.ID, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(ctx, y.ID); err != nil || got.Damaged == "" {
		t.Errorf("without a reason: Get = %+v, %v", got, err)
	}
}

// One of which not even the place is known can be seen and removed.
func TestNoCurrent(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	x := publish(t, l, "debian")
	current := filepath.Join(filepath.Dir(x.Dir), "current")
	if err := errors.Join(os.Remove(current), os.Symlink("../x", current)); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(ctx, x.ID); err != nil || got.Damaged == "" || got.Dir != "" || got.RAM() != "" {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if err := l.SetAside(ctx, x.ID, "why"); err != nil {
		t.Errorf("SetAside = %v", err)
	}
	if removed, err := l.Prune(ctx, template.PruneOptions{}); err != nil || len(removed) != 1 {
		t.Errorf("Prune = %+v, %v", removed, err)
	}
	nothingOf(t, l, x.Key)
}

// An error of whoever reads is not taken for damage.
func TestCancelledIsNotDamaged(t *testing.T) {
	l := open(t, t.TempDir())
	x := publish(t, l, "debian")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, use := l.Use(ctx, x.ID)
	for what, err := range map[string]error{"Use": use, "Verify": l.Verify(ctx, x.ID)} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, template.ErrDamaged) {
			t.Errorf("%s = %v", what, err)
		}
	}
	if _, err := l.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("List = %v", err)
	}
}

// One that is removed while it is read is not damaged, but gone; also if another
// was made since.
func TestGoneIsNotDamaged(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	publish(t, l, "debian")
	x, r, err := l.look(aKey("debian").ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Delete(ctx, x.ID); err != nil {
		t.Fatal(err)
	}
	if err := l.compare(ctx, x, r, names...); errkind.Of(err) != errkind.NotFound {
		t.Errorf("compare of one removed = %v", err)
	}
	s := begin(t, l, x.Key)
	fill(t, s.Dir())
	garble(t, filepath.Join(s.Dir(), template.RootName), 0)
	if _, err := s.Publish(ctx, aGuest()); err != nil {
		t.Fatal(err)
	}
	if err := l.compare(ctx, x, r, names...); errkind.Of(err) != errkind.NotFound {
		t.Errorf("compare of one made anew = %v", err)
	}
}

// One that is made anew stands elsewhere if it is another, so nothing ever
// stands on a root disk that was exchanged.
func TestMadeAnew(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	x := publish(t, l, "debian")
	if err := l.Delete(ctx, x.ID); err != nil {
		t.Fatal(err)
	}
	s := begin(t, l, x.Key)
	fill(t, s.Dir())
	garble(t, filepath.Join(s.Dir(), template.RootName), 0)
	y, err := s.Publish(ctx, aGuest())
	if err != nil || y.ID != x.ID || y.Dir == x.Dir {
		t.Errorf("Publish = %+v, %v, was %+v", y, err, x)
	}
}

func TestPrune(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir())
	var ids []string
	for i, name := range []string{"a", "b", "c"} {
		l.now = func() time.Time { return t0.Add(time.Duration(i) * time.Hour) }
		ids = append(ids, publish(t, l, name).ID)
	}
	l.now = func() time.Time { return t0.Add(10 * time.Hour) }
	if _, err := l.Use(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return t0.Add(20 * time.Hour) }
	prune := func(o template.PruneOptions, want ...string) {
		t.Helper()
		var got []string
		removed, err := l.Prune(ctx, o)
		for _, x := range removed {
			got = append(got, x.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Prune(%+v) = %q, %v, want %q", o, got, err, want)
		}
	}
	prune(template.PruneOptions{})
	prune(template.PruneOptions{UnusedFor: 15 * time.Hour, Keep: map[string]bool{ids[1]: true}}, ids[2])
	x, err := l.Get(ctx, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	prune(template.PruneOptions{MaxBytes: x.SizeBytes}, ids[1])
	// One that is being removed elsewhere, and one used since it was chosen.
	unlock, err := l.store.Lock(ctx, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	prune(template.PruneOptions{UnusedFor: 1})
	unlock()
	if _, err := l.Use(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	if ok, err := l.prune(x); ok || err != nil {
		t.Errorf("one used since went: %v, %v", ok, err)
	}
	if x, err = l.Get(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	x.Dir += "0" // of one that was made anew since
	if ok, err := l.prune(x); ok || err != nil {
		t.Errorf("one made anew went: %v, %v", ok, err)
	}
	l.now = func() time.Time { return t0.Add(30 * time.Hour) }
	prune(template.PruneOptions{UnusedFor: 1}, ids[0])
	nothingOf(t, l, aKey("a"))
}
