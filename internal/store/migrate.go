package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/atomicfile"
	"banger/internal/errkind"
)

// A migration, once released, is never edited: the next one mends it.
// testdata holds a database of every version, from which a test upgrades.
//
//go:embed migrations/*.sql
var files embed.FS

// applicationID says in a file's header that it is ours: "bngr".
const applicationID = 0x626e6772

// backupInfix stands between a database's name and the version of a backup.
const backupInfix = ".bak-"

// migrations hold the SQL that makes schema version n+1 of version n, at n.
type migrations []string

func (ms migrations) latest() int { return len(ms) }

// embedded returns the real migrations. Their files are numbered from 1
// without a gap.
func embedded() migrations {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	var ms migrations
	for n, name := range names { // in lexical order
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		if v, err := strconv.Atoi(number); err != nil || v != n+1 || len(number) != 4 {
			panic("internal error: migration " + name + " is out of order")
		}
		text, err := files.ReadFile(name)
		if err != nil {
			panic("internal error: " + err.Error())
		}
		ms = append(ms, string(text))
	}
	return ms
}

// initialize makes an empty file a database of ours.
func (s *Store) initialize(ctx context.Context, ms migrations) error {
	if _, err := s.writer.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)); err != nil {
		return s.named(ctx, err)
	}
	return s.migrate(ctx, ms, 0)
}

// upgrade brings a database of version v to the latest, after a backup.
func (s *Store) upgrade(ctx context.Context, ms migrations, v int) error {
	if v == ms.latest() {
		return s.named(ctx, s.writer.PingContext(ctx))
	}
	if err := s.backUp(ctx, v); err != nil {
		return fmt.Errorf("back up database %s: %w", s.path, err)
	}
	return s.migrate(ctx, ms, v)
}

// inspect returns a database's schema version. It is an error if it is
// damaged or another program's.
func (s *Store) inspect(ctx context.Context) (version int, err error) {
	var id int
	if err := s.writer.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil {
		return 0, err
	}
	if id != applicationID {
		return 0, damaged(s.path, "it belongs to another program (application id %#x)", id)
	}
	var word string
	if err := s.writer.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&word); err != nil {
		return 0, err
	}
	if word != "ok" {
		return 0, damaged(s.path, "it is damaged: %s", strings.ReplaceAll(word, "\n", " "))
	}
	err = s.writer.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	if err == nil && version < 1 {
		err = damaged(s.path, "it has schema version %d, which there never was", version)
	}
	return version, err
}

// migrate applies the migrations after version from, each in a transaction
// with the version that it makes.
func (s *Store) migrate(ctx context.Context, ms migrations, from int) error {
	for v := from + 1; v <= ms.latest(); v++ {
		err := s.update(ctx, "migrate", func(tx tx) error {
			if _, err := tx.ExecContext(ctx, ms[v-1]); err != nil {
				return err
			}
			if err := checkForeignKeys(ctx, tx); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, v))
			return err
		})
		if err != nil {
			return fmt.Errorf("upgrade to schema version %d: %w", v, err)
		}
	}
	return nil
}

// checkForeignKeys finds a row that a migration left without the one it
// refers to.
func checkForeignKeys(ctx context.Context, tx tx) error {
	var table string
	err := tx.QueryRowContext(ctx, `SELECT "table" FROM pragma_foreign_key_check`).Scan(&table)
	switch {
	case err == nil:
		return fmt.Errorf("a row of %s refers to none", table)
	case errors.Is(err, sql.ErrNoRows):
		return nil
	}
	return err
}

// backUp copies a database of version v, the log included, to a file of its
// own beside it. A backup of the same version is replaced: this one is newer.
func (s *Store) backUp(ctx context.Context, v int) (err error) {
	path := s.path + backupInfix + strconv.Itoa(v)
	staging := path + ".new"
	if err := os.Remove(staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(staging, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(staging))
		}
	}()
	if _, err := s.writer.ExecContext(ctx, `VACUUM INTO ?`, staging); err != nil { // into an empty file
		return s.named(ctx, err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(staging, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// tooNew refuses a database of a later banger.
func (s *Store) tooNew(v, latest int) error {
	err := errkind.New(errkind.Host,
		"database %s: it has schema version %d, of a newer banger, and this one knows versions up to %d: use the newer one",
		s.path, v, latest)
	b := s.path + backupInfix + strconv.Itoa(latest)
	if _, serr := os.Stat(b); serr != nil {
		return errkind.WithHint(err, "banger version")
	}
	err = fmt.Errorf("%w; the backup %s lacks what happened since the upgrade", err, b)
	return errkind.WithHint(err, putAside(s.path)[0]+" && cp -p "+errkind.Quote(b)+" "+errkind.Quote(s.path))
}
