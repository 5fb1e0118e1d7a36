package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"banger/internal/vm"
)

// Options are what a store needs to know beyond its file.
type Options struct {
	// Now tells the time; nil means time.Now.
	Now func() time.Time
	// UIDs is where new machines get their user ids from.
	UIDs vm.UIDRange
	// TestOnlyFail, if not nil, is called by every method with the method's
	// name when all is done but not yet committed. If it returns an error
	// the method fails with that, and nothing is recorded.
	TestOnlyFail func(method string) error
}

// A Store is the open database. Use [Open] or [OpenReadOnly].
type Store struct {
	path string
	opts Options
	// Writers queue for one connection, in order and with their contexts,
	// instead of meeting at the file's lock; readers never wait for them.
	// Both are the same where nothing is written.
	writer, reader *sql.DB
}

// Close closes the database. Methods that run are waited for. It may be
// called twice.
func (s *Store) Close() error {
	return errors.Join(s.reader.Close(), s.writer.Close())
}

// tx is a transaction, with the one time that it happens at.
type tx struct {
	*sql.Tx
	now time.Time
}

// update runs f in a transaction that writes, for a method.
func (s *Store) update(ctx context.Context, method string, f func(tx) error) error {
	return s.named(ctx, s.run(ctx, s.writer, method, f))
}

// view runs f in a transaction that only reads, for a method.
func (s *Store) view(ctx context.Context, method string, f func(tx) error) error {
	return s.named(ctx, s.run(ctx, s.reader, method, f))
}

func (s *Store) run(ctx context.Context, db *sql.DB, method string, f func(tx) error) error {
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback() // does nothing after Commit; its own failure adds nothing

	// Round(0) drops the monotonic clock, which no file can hold.
	now := s.opts.Now().UTC().Round(0)
	if err := f(tx{Tx: t, now: now}); err != nil {
		return err
	}
	if fail := s.opts.TestOnlyFail; fail != nil {
		if err := fail(method); err != nil {
			return err
		}
	}
	return t.Commit()
}
