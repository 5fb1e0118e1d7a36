package store

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/vm"
)

func TestOpenNew(t *testing.T) {
	s := newStore(t, options())
	mustCreate(t, s, machine("web"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		fi, err := os.Stat(s.path + suffix)
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", suffix, fi, err)
		}
	}
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
		"application_id": "1651402610", "user_version": fmt.Sprint(embedded().latest()),
	} {
		var got string
		if err := s.writer.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", pragma, got, err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil || len(files) != 1 {
		t.Errorf("after Close there is %v, %v", files, err)
	}
	if _, err := s.List(t.Context()); err == nil {
		t.Error("List after Close succeeds")
	}
}

func TestOpenAgain(t *testing.T) {
	s := newStore(t, options())
	want := mustCreate(t, s, machine("web"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(s.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Get(t.Context(), want.ID)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}
	if fi, err := os.Stat(s.path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if got := mustCreateWith(t, s, vm.UIDRange{Base: 6000, Count: 9}); got.CreatedAt.IsZero() || got.CreatedAt.Location().String() != "UTC" {
		t.Errorf("created at %v", got.CreatedAt)
	}
}

func mustCreateWith(t *testing.T, s *Store, r vm.UIDRange) vm.VM {
	t.Helper()
	s.opts.UIDs = r
	return mustCreate(t, s, machine("another"))
}

// What an earlier daemon had begun to create is no obstacle.
func TestOpenAfterACrashInOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banger.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.WriteFile(path+".new"+suffix, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustCreate(t, s, machine("web"))
	if left, _ := filepath.Glob(path + ".new*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOpenWithoutADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "banger.db")
	if _, err := Open(path, options()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open gives %v", err)
	}
	if _, err := OpenReadOnly(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("OpenReadOnly gives %v", err)
	}
}

// filled returns the path of a database with machines in it, closed.
func filled(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "banger.db")
	s, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		mustCreate(t, s, machine(fmt.Sprint("m", i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// snapshot returns the content of every file beside path but SQLite's index
// of the log, which is rebuilt whenever it is needed.
func snapshot(t *testing.T, path string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "-shm") {
			continue
		}
		if fi, err := os.Stat(name); err == nil && fi.IsDir() {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 || !strings.HasSuffix(name, "-wal") {
			files[name] = string(data)
		}
	}
	return files
}

// What is not a sound database of ours is named and left as it is, and the
// hints put it aside.
func TestOpenRefuses(t *testing.T) {
	edit := func(f func(data []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sql := func(q string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			s, err := openFile(path, options())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.writer.Exec(q); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, path string)
		text  string
	}{
		{"empty", edit(func([]byte) []byte { return nil }), "it is empty"},
		{"short", edit(func(d []byte) []byte { return d[:10] }), "no SQLite database"},
		{"garbage", edit(func([]byte) []byte { return []byte(strings.Repeat("garbage ", 1000)) }), "no SQLite database"},
		{"header alone", edit(func(d []byte) []byte { return d[:100] }), "it is damaged: "},
		{"half", edit(func(d []byte) []byte { return d[:len(d)/2] }), "it is damaged: "},
		{"all but a page", edit(func(d []byte) []byte { return d[:len(d)-4096] }), "it is damaged: "},
		{"garbage inside", edit(func(d []byte) []byte { copy(d[4096+8:], strings.Repeat("x", 4000)); return d }), "it is damaged: "},
		{"zeros inside", edit(func(d []byte) []byte { clear(d[8192:12288]); return d }), "it is damaged: "},
		{"garbage behind the header", edit(func(d []byte) []byte { copy(d[16:], strings.Repeat("x", 200)); return d }), "it is damaged: "},
		{"another program's", sql("PRAGMA application_id = 252006674"), "another program (application id 0xf055112)"},
		{"a newer version's", sql("PRAGMA user_version = 99"), "schema version 99, of a newer banger, and this one knows versions up to "},
		{"version 0", sql("PRAGMA user_version = 0"), "schema version 0"},
		{"a directory", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, "no regular file"},
		{"its log alone", func(t *testing.T, path string) {
			if err := os.Rename(path, path+"-wal"); err != nil {
				t.Fatal(err)
			}
		}, "it is missing, but its log"},
	}
	sound, err := os.ReadFile(filled(t, 30))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "banger.db")
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, path)
			before := snapshot(t, path)
			_, err := OpenReadOnly(path)
			fails(t, err, errkind.Host, tt.text)
			_, err = Open(path, options())
			fails(t, err, errkind.Host, tt.text)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name the file", err)
			}
			if d := cmp.Diff(before, snapshot(t, path)); d != "" {
				t.Errorf("it was changed (-before +after):\n%.300s", d)
			}
			if tt.name == "a newer version's" {
				return // whose hint depends on the backup; see TestTooNew
			}
			sh(t, errkind.Hints(err)[0])
			s, err := Open(path, options())
			if err != nil {
				t.Fatalf("after the hint: %v", err)
			}
			s.Close()
		})
	}
}

func sh(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// A log that goes with a damaged database is left, and put aside with it.
func TestOpenRefusesLeavesTheLog(t *testing.T) {
	from := newStore(t, options())
	v := mustCreate(t, from, machine("web"))
	if _, err := from.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Change(t.Context(), v.ID, vm.Change{To: vm.Starting}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "it's banger.db")
	copyDatabase(t, from.path, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[len(data)-4096:]) // the log has no newer version of it
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, path)
	_, err = Open(path, options())
	fails(t, err, errkind.Host, path)
	if d := cmp.Diff(before, snapshot(t, path)); d != "" {
		t.Errorf("it was changed (-before +after):\n%.300s", d)
	}
	sh(t, errkind.Hints(err)[0])
	aside := snapshot(t, path+".broken")
	if len(aside) != 2 || aside[path+".broken-wal"] != before[path+"-wal"] {
		t.Errorf("put aside are %d files", len(aside))
	}
}

// copyDatabase copies a database that is open, as a crash would leave it.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenReadOnly(t *testing.T) {
	s := newStore(t, options())
	want := mustCreate(t, s, machine("web"))
	// The daemon runs, or was killed: the newest records are in the log alone.
	path := filepath.Join(t.TempDir(), "banger.db")
	copyDatabase(t, s.path, path)
	before := snapshot(t, path)
	ro, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ro.Resolve(t.Context(), "web")
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("Resolve: %v (-want +got):\n%s", err, d)
	}
	err = ro.Delete(t.Context(), want.ID)
	fails(t, err, errkind.Host, "readonly")
	_, err = ro.Change(t.Context(), want.ID, vm.Change{To: vm.Starting})
	fails(t, err, errkind.Host, "readonly")
	for range 2 {
		if err := ro.Close(); err != nil {
			t.Error(err)
		}
	}
	if d := cmp.Diff(before, snapshot(t, path)); d != "" {
		t.Errorf("it was changed (-before +after):\n%.300s", d)
	}
}

func TestFullDisk(t *testing.T) {
	s := newStore(t, options())
	if _, err := s.writer.Exec("PRAGMA max_page_count = 8"); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = s.Create(t.Context(), machine(fmt.Sprint("m", n)))
	}
	fails(t, err, errkind.Host, s.path)
	if h := errkind.Hints(err); len(h) == 0 || h[0] != "df -h "+filepath.Dir(s.path) {
		t.Errorf("hints %q", h)
	}
	vs, err := s.List(t.Context())
	if err != nil || len(vs) != n-1 {
		t.Errorf("%d of %d machines, %v", len(vs), n-1, err)
	}
}

func TestLockedByAnother(t *testing.T) {
	s := newStore(t, options())
	other, err := connect(s.path, durable)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := s.writer.Exec("PRAGMA busy_timeout = 1"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(t.Context(), machine("web"))
	fails(t, err, errkind.Conflict, "locked")
	if vs, err := s.List(t.Context()); err != nil || len(vs) != 0 { // readers go on
		t.Errorf("List gives %v, %v", vs, err)
	}
}

// A process that is killed loses nothing that a method returned for, and
// leaves nothing half done.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banger.db")
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BANGER_STORE_HELPER="+path, fmt.Sprint("BANGER_STORE_ROUND=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var told []string
		for lines.Scan() {
			if told = append(told, lines.Text()); len(told) == 10 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if len(told) < 10 {
			t.Fatalf("it told %q", told)
		}
		s, err := Open(path, options())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range told {
			if v, err := s.Resolve(t.Context(), name); err != nil || v.State == vm.Created {
				t.Errorf("round %d: %s was told, now %s, %v", round, name, v.State, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
