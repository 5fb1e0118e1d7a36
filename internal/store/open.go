package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"banger/internal/atomicfile"
	"banger/internal/errkind"
)

// Open opens the database at path, whose directory exists, and makes it if
// there is none. One of an earlier version is copied to a backup beside it and
// upgraded. One that is damaged, of another program, or of a later version is
// left as it is; the error is of kind [errkind.Host], names it, and says how to
// put it aside. A file is opened once in a process: to close a second
// descriptor of it would give up the locks of the first (fcntl(2)).
func Open(path string, o Options) (*Store, error) {
	return open(path, o, embedded())
}

// ErrOlder says that a database is of an earlier version, which is no fault of
// it: [Open] upgrades it.
var ErrOlder = errors.New("the daemon's next start will make it the current one")

// OpenReadOnly opens the database at path without changing its content; every
// method that writes fails. It may be open in another process. An error that is
// [fs.ErrNotExist] says that there is none. One of an earlier version is
// refused too ([ErrOlder]): only [Open] upgrades.
func OpenReadOnly(path string) (*Store, error) {
	return openReadOnly(path, embedded())
}

func openReadOnly(path string, ms migrations) (*Store, error) {
	s, v, err := look(path, ms)
	if err == nil && v < ms.latest() {
		err = errkind.WithHint(errkind.New(errkind.Host,
			"database %s: it has schema version %d, and %w", path, v, ErrOlder),
			"banger daemon start")
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open is Open with other migrations than the real ones.
func open(path string, o Options, ms migrations) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	ro, v, err := look(path, ms)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path, o, ms); err != nil {
			return nil, err
		}
		v = ms.latest()
	case err != nil:
		return nil, err
	default:
		if err := ro.Close(); err != nil {
			return nil, err
		}
	}
	s, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	if err := s.upgrade(context.Background(), ms, v); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// look opens a database for reading and returns its schema version, if it is
// sound and ours. What it refuses stays as it is, with its log: a connection
// that may write would write that back when it is closed.
func look(path string, ms migrations) (s *Store, version int, err error) {
	if err := checkHeader(path); err != nil {
		return nil, 0, err
	}
	db, err := connect(path, url.Values{"mode": {"ro"}})
	if err != nil {
		return nil, 0, err
	}
	s = &Store{path: path, opts: Options{Now: time.Now}, writer: db, reader: db}
	ctx := context.Background()
	version, err = s.inspect(ctx)
	if err == nil && version > ms.latest() {
		err = s.tooNew(version, ms.latest())
	}
	if err != nil {
		return nil, 0, errors.Join(s.named(ctx, err), s.Close())
	}
	return s, version, nil
}

// openFile connects to a file that is there.
func openFile(path string, o Options) (*Store, error) {
	if err := os.Chmod(path, 0o600); err != nil { // it holds the agents' tokens
		return nil, err
	}
	writer, err := connect(path, durable)
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	writer.SetMaxIdleConns(1)
	reader, err := connect(path, url.Values{"_query_only": {"1"}, "_foreign_keys": {"1"}})
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(4)
	reader.SetMaxIdleConns(4)
	return &Store{path: path, opts: o, writer: writer, reader: reader}, nil
}

// create makes an empty database, under a staging name until it is whole: so
// one that is empty or half there is damage, and never taken for new.
func create(path string, o Options, ms migrations) (err error) {
	staging := path + ".new"
	sweep := func() error {
		var errs []error
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(staging + suffix); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if err := sweep(); err != nil {
		return fmt.Errorf("create database %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create database %s: %w", path, err), sweep())
		}
	}()
	f, err := os.OpenFile(staging, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	s, err := openFile(staging, o)
	if err != nil {
		return err
	}
	// Closing writes the log back into the file and removes it.
	if err := errors.Join(s.initialize(context.Background(), ms), s.Close()); err != nil {
		return err
	}
	if err := os.Rename(staging, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// durable is how a connection is set up that writes.
var durable = url.Values{
	"_journal_mode": {"WAL"},
	"_synchronous":  {"FULL"},
	"_foreign_keys": {"1"},
	"_txlock":       {"immediate"},
}

// connect returns a pool for a file; a connection is only opened when needed.
func connect(path string, params url.Values) (*sql.DB, error) {
	q := url.Values{"mode": {"rw"}, "_busy_timeout": {"5000"}, "_dqs": {"0"}, "_error_rc": {"1"}}
	for k, v := range params {
		q[k] = v
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// The time stamps of the file, which fsync writes too, are of no use.
	if _, err := sqlite.Fdatasync(true); err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}
