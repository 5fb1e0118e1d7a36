// Package filestore keeps versions of named things as directories of files,
// so that a version is there whole or not at all, whatever dies.
//
//	<dir>/<name>/<id>/…     one version; never changed once it is there
//	<dir>/<name>/current    symbolic link to the newest
//	<dir>/.staging/<name>/  a version being made
//	<dir>/.staging/<name>.* what is being removed
//	<dir>/.lock/<name>      held (flock) by whoever makes or deletes
//
// Those who read take no lock: a version appears and disappears by renaming.
// Several processes may use one directory at once. What is there may be read
// by every user of the host, for machines run as users of their own; what is
// being made by its maker alone.
package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/atomicfile"
	"banger/internal/errkind"
)

const (
	current = "current"
	staging = ".staging"
	locks   = ".lock"
	// lockPoll is how often a lock that another process holds is tried.
	lockPoll = 50 * time.Millisecond
)

// Store is a directory of named things. Use [Open] to get one.
type Store struct {
	dir      string
	exchange func(a, b string) error // swaps two paths in one step; tests replace it
}

// Open returns the store in dir, which is made if it is not there. What makers
// that died left behind is removed, as far as it can be.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, exchange: exchange}
	for _, d := range []struct {
		path string
		perm os.FileMode
	}{{dir, 0o755}, {filepath.Join(dir, staging), 0o700}, {filepath.Join(dir, locks), 0o700}} {
		if err := os.MkdirAll(d.path, d.perm); err != nil {
			return nil, err
		}
		if err := os.Chmod(d.path, d.perm); err != nil { // whatever the umask
			return nil, err
		}
	}
	s.sweep()
	return s, nil
}

// sweep removes what is staged and has no maker. What cannot be removed is met
// again by the next sweep, and, with an error, by whoever makes the next
// version.
func (s *Store) sweep() {
	left, err := os.ReadDir(filepath.Join(s.dir, staging))
	if err != nil {
		return
	}
	for _, e := range left {
		name, _, _ := strings.Cut(e.Name(), ".")
		unlock, err := s.tryLock(name)
		if err != nil {
			continue // its maker lives
		}
		_ = s.clear(filepath.Join(s.dir, staging, e.Name()), name)
		unlock()
	}
}

// CheckName returns an error of kind [errkind.Usage] if name is no DNS label.
func CheckName(name string) error {
	ok := len(name) > 0 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c == '-' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if !ok {
		return errkind.New(errkind.Usage, "%q is no name: it takes 1 to 63 lower case letters, digits and inner hyphens", name)
	}
	return nil
}

// checkID refuses what is not made of hexadecimal digits.
func checkID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) > 0 && len(id) <= 64
}

// Names returns the names of what has a current version, whole or damaged,
// sorted.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if CheckName(e.Name()) != nil || !e.IsDir() {
			continue
		}
		if _, err := os.Lstat(filepath.Join(s.dir, e.Name(), current)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Current returns the ID of the current version of name. If there is none the
// error is an [fs.ErrNotExist].
func (s *Store) Current(name string) (string, error) {
	if CheckName(name) != nil {
		return "", fs.ErrNotExist
	}
	id, err := os.Readlink(filepath.Join(s.dir, name, current))
	if err != nil {
		return "", err
	}
	if !checkID(id) {
		return "", fmt.Errorf("%s points to %q", filepath.Join(s.dir, name, current), id)
	}
	return id, nil
}

// Versions returns the IDs of all versions of name, sorted; none if there is
// nothing of that name.
func (s *Store) Versions(name string) ([]string, error) {
	if CheckName(name) != nil {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && checkID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Dir returns the directory of one version, which need not be there.
func (s *Store) Dir(name, id string) string { return filepath.Join(s.dir, name, id) }

// Lock waits until nobody else, here or in another process, makes or deletes
// versions of name. Who holds a lock must not ask for it again.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		unlock, err := s.tryLock(name)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// TryLock is Lock without waiting. It reports false if the lock is held.
func (s *Store) TryLock(name string) (unlock func(), ok bool, err error) {
	if err := CheckName(name); err != nil {
		return nil, false, err
	}
	unlock, err = s.tryLock(name)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, nil
	}
	return unlock, err == nil, err
}

func (s *Store) tryLock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, locks, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { f.Close() }, nil
}

// SetCurrent makes a version that is there the current one.
// Preconditions: the caller holds the lock of name.
func (s *Store) SetCurrent(name, id string) error {
	dir := filepath.Join(s.dir, name)
	tmp := filepath.Join(dir, "."+current+".tmp")
	if err := removeAll(tmp); err != nil {
		return err
	}
	if err := os.Symlink(id, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, current)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return atomicfile.SyncDir(dir)
}

// Delete removes one version. It succeeds if it is not there. If it is the
// current one, no version is current after.
// Preconditions: the caller holds the lock of name.
func (s *Store) Delete(name, id string) error {
	if !checkID(id) {
		return nil
	}
	if cur, err := s.Current(name); err == nil && cur == id {
		if err := os.Remove(filepath.Join(s.dir, name, current)); err != nil {
			return err
		}
	}
	return s.remove(name, s.Dir(name, id))
}

// DeleteAll removes every version of name. It succeeds if there is none.
// Whoever dies at it leaves all of them or none that can be seen; the next
// [Open] removes those.
// Preconditions: the caller holds the lock of name.
func (s *Store) DeleteAll(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return s.remove(name, filepath.Join(s.dir, name))
}

// remove removes path, which is of name. It succeeds if it is not there.
// Preconditions: the caller holds the lock of name.
func (s *Store) remove(name, path string) error {
	trash, err := s.hide(name, path)
	return errors.Join(err, removeAll(trash))
}

// hide takes path, which is of name, out of sight in one step, for those
// who read take no lock, and durably, for what is half removed must not come
// back. It returns where what is to be removed is now, if only an empty
// directory; "" if there is nothing.
func (s *Store) hide(name, path string) (trash string, err error) {
	if trash, err = os.MkdirTemp(filepath.Join(s.dir, staging), name+".*"); err != nil {
		return "", err
	}
	err = os.Rename(path, filepath.Join(trash, "old"))
	if errors.Is(err, fs.ErrNotExist) {
		return trash, nil
	}
	if err != nil {
		return trash, err
	}
	return trash, atomicfile.SyncDir(filepath.Dir(path))
}

// Keep removes all versions of name but those given.
// Preconditions: the caller holds the lock of name.
func (s *Store) Keep(name string, ids ...string) error {
	have, err := s.Versions(name)
	if err != nil {
		return err
	}
	for _, id := range have {
		if !slices.Contains(ids, id) {
			if err := s.Delete(name, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeAll is [os.RemoveAll], but also of directories that lack the
// permission to be emptied, where we are not root.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
