package store

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/session"
	"banger/internal/vm"
)

var save = flag.Bool("save", false, "write testdata/<latest version>.db anew (only before that version is released)")

// pretend is a migration that there never was, for the tests of migrating.
const pretend = `
	ALTER TABLE machines ADD COLUMN mac TEXT NOT NULL DEFAULT '02:00:00:00:00:00';
	CREATE TABLE disks (machine TEXT NOT NULL REFERENCES machines (id)) STRICT;`

func saved(version int) string { return filepath.Join("testdata", fmt.Sprintf("%04d.db", version)) }

// savedMachines are what the saved database of a version holds, as today's code
// sees it.
func savedMachines(version int) []vm.VM {
	a, b := machine("web"), machine("db")
	a.ID, a.UID, a.VsockCID, a.CreatedAt = "00000001", 5000, 3, t0
	a.State, a.StartedAt, a.GuestIP = vm.Running, t0, "10.0.0.2"
	b.ID, b.UID, b.VsockCID, b.CreatedAt = "00000002", 5001, 4, t0
	b.State, b.StateReason, b.LastError, b.Ephemeral = vm.Faulty, "taking down failed", "disk: busy", true
	b.Spec.Labels = nil
	a.Spec.Network, b.Spec.Network = "nat", "nat" // what 0002 makes of those before it
	if version >= 2 {
		b.GuestIP = "10.0.0.3"
	}
	if version >= 3 {
		a.VsockCID, b.VsockCID = a.UID, b.UID // what machines made since then get
	}
	if version < 6 {
		a.Spec.AutoPause, b.Spec.AutoPause = 0, 0
	}
	return []vm.VM{b, a} // in List's order
}

// savedSessions are the sessions in it, from version 3 on.
func savedSessions(version int) []session.Session {
	if version < 3 {
		return []session.Session{}
	}
	a, b := aSession("00000001", "echo", 1), aSession("00000001", "gone", 2)
	a.VM, a.CreatedAt, a.Status, a.GuestPID, a.StartedAt, a.LastError = "web", t0, session.Running, 7, t0, "why"
	b.VM, b.CreatedAt, b.Status, b.FailedStage, b.FailedMessage, b.EndedAt = "web", t0, session.Failed, "run", "machine stopped", t0
	b.Args, b.Env, b.Tags, b.Required = nil, nil, nil, nil
	return []session.Session{a, b}
}

// copySaved copies a saved database to a place where it can be opened.
func copySaved(t *testing.T, version int) (path string) {
	t.Helper()
	data, err := os.ReadFile(saved(version))
	if err != nil {
		t.Fatalf("%v: every version needs its database, which the test of the next migration starts from; write it with: go test ./internal/store -run TestSaved -save", err)
	}
	path = filepath.Join(t.TempDir(), "banger.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// There is a saved database of every version; those of the past are upgraded.
// A migration that adds something adds here what it makes of old machines.
func TestSaved(t *testing.T) {
	latest := embedded().latest()
	if *save {
		writeSaved(t, saved(latest))
	}
	for v := 1; v <= latest; v++ {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			path := copySaved(t, v)
			s, err := Open(path, options())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := s.List(t.Context())
			if d := cmp.Diff(savedMachines(v), got); err != nil || d != "" {
				t.Errorf("List: %v (-want +got):\n%s", err, d)
			}
			sessions, err := s.Sessions(t.Context(), "")
			if d := cmp.Diff(savedSessions(v), sessions); err != nil || d != "" {
				t.Errorf("Sessions: %v (-want +got):\n%s", err, d)
			}
			if _, err := os.Stat(path + backupInfix + fmt.Sprint(v)); (err == nil) != (v < latest) {
				t.Errorf("backup of version %d: %v", v, err)
			}
		})
	}
}

// A migration that was released is never edited: it still makes the schema of
// the saved database.
func TestMigrationsUnchanged(t *testing.T) {
	ms := embedded()
	for v := 1; v <= ms.latest(); v++ {
		fresh, err := open(filepath.Join(t.TempDir(), "banger.db"), options(), ms[:v])
		if err != nil {
			t.Fatal(err)
		}
		old, err := open(copySaved(t, v), options(), ms[:v])
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(schema(t, old), schema(t, fresh)); d != "" {
			t.Errorf("version %d (-saved +made by the migrations):\n%s", v, d)
		}
		if err := errors.Join(fresh.Close(), old.Close()); err != nil {
			t.Error(err)
		}
	}
}

// schema returns the SQL of every table and index.
func schema(t *testing.T, s *Store) (sqls []string) {
	t.Helper()
	rows, err := s.reader.Query(`SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var sql string
		if err := rows.Scan(&sql); err != nil {
			t.Fatal(err)
		}
		sqls = append(sqls, sql)
	}
	return sqls
}

func writeSaved(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetSubnet(t.Context(), netip.MustParsePrefix("10.0.0.0/24")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		v := savedMachines(embedded().latest())[want]
		if _, err := s.Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		c := vm.Change{To: v.State, Reason: v.StateReason, Started: !v.StartedAt.IsZero(), LastError: &v.LastError, Found: true}
		if _, err := s.Change(t.Context(), v.ID, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range savedSessions(embedded().latest()) {
		if _, err := s.CreateSession(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUpgrade(t *testing.T) {
	v := embedded().latest()
	path := copySaved(t, v)
	for _, name := range []string{backupInfix + fmt.Sprint(v), backupInfix + fmt.Sprint(v) + ".new"} {
		if err := os.WriteFile(path+name, []byte("of an earlier attempt"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := open(path, options(), append(embedded(), pretend))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.List(t.Context())
	if d := cmp.Diff(savedMachines(v), got); err != nil || d != "" {
		t.Errorf("List: %v (-want +got):\n%s", err, d)
	}
	var mac string
	if err := s.reader.QueryRow(`SELECT mac FROM machines WHERE name = 'web'`).Scan(&mac); err != nil || mac != "02:00:00:00:00:00" {
		t.Errorf("mac %q, %v", mac, err)
	}

	backup := path + backupInfix + fmt.Sprint(v)
	if fi, err := os.Stat(backup); err != nil || fi.Mode() != 0o600 {
		t.Errorf("backup: %v, %v", fi, err)
	}
	if _, err := os.Stat(backup + ".new"); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
	old, err := OpenReadOnly(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	got, err = old.List(t.Context())
	if d := cmp.Diff(savedMachines(v), got); err != nil || d != "" {
		t.Errorf("List of the backup: %v (-want +got):\n%s", err, d)
	}
}

// A backup holds what stands in the log alone.
func TestUpgradeAfterACrash(t *testing.T) {
	s := newStore(t, options())
	mustCreate(t, s, machine("web"))
	path := filepath.Join(t.TempDir(), "banger.db")
	copyDatabase(t, s.path, path)
	up, err := open(path, options(), append(embedded(), pretend))
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	old, err := OpenReadOnly(path + backupInfix + fmt.Sprint(embedded().latest()))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	for _, s := range []*Store{up, old} {
		if _, err := s.Resolve(t.Context(), "web"); err != nil {
			t.Error(err)
		}
	}
}

func TestUpgradeThatFails(t *testing.T) {
	v := embedded().latest()
	path := copySaved(t, v)
	for name, bad := range map[string]string{
		"syntax":      "CREATE TABLE t (x TEXT) STRICT; NONSENSE",
		"constraint":  "CREATE TABLE t (x TEXT NOT NULL) STRICT; INSERT INTO t VALUES (NULL)",
		"foreign key": "PRAGMA defer_foreign_keys = 1; CREATE TABLE t (x TEXT REFERENCES machines (id)) STRICT; INSERT INTO t VALUES ('none')",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(path, options(), append(embedded(), pretend, bad))
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("upgrade to schema version %d", v+2)) {
				t.Fatalf("open gives %v", err)
			}
			// What came before stands; what failed is as if never tried.
			s, err := open(path, options(), append(embedded(), pretend))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if all := strings.Join(schema(t, s), "\n"); strings.Contains(all, "table t ") || !strings.Contains(all, "table disks ") {
				t.Errorf("the schema is\n%s", all)
			}
		})
	}
}

func TestTooNew(t *testing.T) {
	v := embedded().latest()
	path := copySaved(t, v)
	s, err := open(path, options(), append(embedded(), pretend))
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, machine("later"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(path, options())
	fails(t, err, errkind.Host, fmt.Sprintf("schema version %d, of a newer banger, and this one knows versions up to %d", v+1, v))
	if !strings.Contains(err.Error(), path+backupInfix+fmt.Sprint(v)+" lacks what happened since") {
		t.Errorf("the error is %v", err)
	}
	sh(t, errkind.Hints(err)[0])
	s, err = Open(path, options())
	if err != nil {
		t.Fatalf("after the hint: %v", err)
	}
	defer s.Close()
	got, err := s.List(t.Context())
	if d := cmp.Diff(savedMachines(v), got); err != nil || d != "" {
		t.Errorf("List: %v (-want +got):\n%s", err, d)
	}
	if _, err := os.Stat(path + ".broken"); err != nil {
		t.Errorf("the newer database: %v", err)
	}
}

func TestTooOldToRead(t *testing.T) {
	path := copySaved(t, 1)
	_, err := openReadOnly(path, append(embedded(), pretend))
	fails(t, err, errkind.Host, "the daemon's next start will make it")
	if !errors.Is(err, ErrOlder) {
		t.Errorf("%v is not ErrOlder", err)
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("the error is %v", err)
	}
}

// The newest backup is offered when the database is damaged.
func TestHintOfABackup(t *testing.T) {
	path := filled(t, 3)
	for _, name := range []string{".bak-2", ".bak-10", ".bak-9", ".bak-11.new", ".bak-x"} {
		if err := os.WriteFile(path+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, options())
	want := []string{"mv --backup=numbered " + path + " " + path + ".broken", "cp -p " + path + ".bak-10 " + path}
	if d := cmp.Diff(want, errkind.Hints(err)); d != "" {
		t.Errorf("hints of %v (-want +got):\n%s", err, d)
	}
}
