package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger/internal/errkind"
)

// named gives an error of SQLite the database's name, a kind and a hint. It
// is the only place where result codes are read, but for [unique]. What has a
// kind already passes as it is.
func (s *Store) named(ctx context.Context, err error) error {
	var se *sqlite.Error
	var ours *errkind.Error
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case ctx.Err() != nil:
		// SQLite and database/sql say so in words of their own.
		return fmt.Errorf("database %s: %w", s.path, context.Cause(ctx))
	case errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone):
		return fmt.Errorf("database %s: %w", s.path, err)
	case !errors.As(err, &se):
		return err
	}
	dir, say := filepath.Dir(s.path), func(k errkind.Kind, what string, hints ...string) error {
		return errkind.WithHint(errkind.New(k, "database %s: %s: %w", s.path, what, err), hints...)
	}
	switch se.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return say(errkind.Host, "it is damaged", putAside(s.path)...)
	case sqlite3.SQLITE_FULL:
		return say(errkind.Host, "no room is left", "df -h "+errkind.Quote(dir))
	case sqlite3.SQLITE_IOERR:
		return say(errkind.Host, "its disk fails", "df -h "+errkind.Quote(dir), "dmesg | tail")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return say(errkind.Host, "it cannot be written or opened", "ls -ld "+errkind.Quote(dir)+" "+errkind.Quote(s.path)+"*")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return say(errkind.Conflict, "another process has locked it", "find /proc/[0-9]*/fd -lname "+errkind.Quote(s.path))
	}
	return fmt.Errorf("database %s: %w", s.path, err)
}

// unique reports whether err says that a value that must be unique is not.
func unique(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) &&
		(se.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || se.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// damaged returns the error for a file that is no database of ours.
func damaged(path, format string, args ...any) error {
	err := errkind.New(errkind.Host, "database %s: %s", path, fmt.Sprintf(format, args...))
	return errkind.WithHint(err, putAside(path)...)
}

// header is what every SQLite database begins with.
const header = "SQLite format 3\x00"

// checkHeader refuses a file that is no SQLite database before SQLite sees
// it: an empty one SQLite would take for new. The error is [fs.ErrNotExist] if
// there is none, nor a log, which SQLite would play into whatever came next.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if fi, err := os.Stat(path + "-wal"); err == nil && fi.Size() > 0 {
			return damaged(path, "it is missing, but its log %s-wal is there", path)
		}
	}
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return damaged(path, "it is no regular file")
	}
	head := make([]byte, len(header))
	switch _, err := io.ReadFull(f, head); {
	case errors.Is(err, io.EOF):
		return damaged(path, "it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF) || err == nil && string(head) != header:
		return damaged(path, "it is no SQLite database")
	case err != nil:
		return fmt.Errorf("read database %s: %w", path, err)
	}
	return nil
}

// putAside returns the lines that move a database away, over nothing that was
// moved there before, and put its newest backup, if there is one, in its place.
// A log beside it belongs to it: left there it would spoil the backup, and
// without it the damaged file is older than it could be.
func putAside(path string) []string {
	var lines []string
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			lines = append(lines, "mv --backup=numbered "+errkind.Quote(path+suffix)+" "+errkind.Quote(path+".broken"+suffix))
		}
	}
	hints := []string{strings.Join(lines, " && ")}
	if b := newestBackup(path); b != "" {
		hints = append(hints, "cp -p "+errkind.Quote(b)+" "+errkind.Quote(path))
	}
	return hints
}

// newestBackup returns the backup of the latest schema version, or "".
func newestBackup(path string) string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return ""
	}
	newest, of := "", -1
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+backupInfix)
		if v, err := strconv.Atoi(number); ok && err == nil && v > of {
			newest, of = filepath.Join(filepath.Dir(path), e.Name()), v
		}
	}
	return newest
}
