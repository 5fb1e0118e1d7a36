package daemontest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// Limits makes directories that bound nothing.
type Limits struct {
	Dir  string                // of all groups
	Fail func(op string) error // asked before and after each operation; may be nil

	mu     sync.Mutex
	killed map[string]int64 // by machine: the limit it met; guarded by mu
}

// Kill makes a machine's VMM one that was killed for want of memory, at limit;
// 0: by the host's want.
func (l *Limits) Kill(id string, limit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed == nil {
		l.killed = make(map[string]int64)
	}
	l.killed[id] = limit
}

func (l *Limits) around(op string, f func() error) error {
	if l.Fail == nil {
		return f()
	}
	if err := l.Fail("before " + op); err != nil {
		return err
	}
	return errors.Join(f(), l.Fail("after "+op))
}

// Make makes a directory.
func (l *Limits) Make(id string, _ int64, _ int) (dir string, err error) {
	err = l.around("limit", func() error { return os.MkdirAll(l.Path(id), 0o755) })
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(l.Path(id)))
	}
	return l.Path(id), nil
}

// Path is that directory.
func (l *Limits) Path(id string) string { return filepath.Join(l.Dir, id) }

// OutOfMemory tells what Kill was told.
func (l *Limits) OutOfMemory(id string) (limit int64, killed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit, killed = l.killed[id]
	return limit, killed
}

// Remove removes what Make made.
func (l *Limits) Remove(_ context.Context, id string) error {
	return l.around("unlimit", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.killed, id)
		return os.RemoveAll(l.Path(id))
	})
}

// Prune removes what keep does not name.
func (l *Limits) Prune(keep map[string]bool) error {
	entries, err := os.ReadDir(l.Dir)
	errs := []error{ignoreMissing(err)}
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, os.RemoveAll(l.Path(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Err is nil: there are limits.
func (l *Limits) Err() error { return nil }

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
