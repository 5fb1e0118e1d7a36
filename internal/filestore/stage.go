package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/atomicfile"
)

// A Stage is a version being made. Its maker holds the lock of its name from
// before [Store.Stage] until after [Stage.Commit] or [Stage.Discard].
type Stage struct {
	Dir   string // what will be the version
	Tmp   string // for what is needed on the way; never part of a version
	top   string // what holds both
	store *Store
	name  string
}

// Stage begins a version of name. What an earlier maker left is removed.
// Preconditions: the caller holds the lock of name.
func (s *Store) Stage(name string) (*Stage, error) {
	top := filepath.Join(s.dir, staging, name)
	if err := s.clear(top, name); err != nil {
		return nil, fmt.Errorf("remove what was left half made: %w", err)
	}
	g := &Stage{Dir: filepath.Join(top, "new"), Tmp: filepath.Join(top, "tmp"), top: top, store: s, name: name}
	for _, d := range []string{top, g.Dir, g.Tmp} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, errors.Join(err, removeAll(top))
		}
	}
	return g, nil
}

// Commit makes what is in Dir the current version of the name, under id, which
// takes hexadecimal digits; one of that id that is there, as it may be if it
// was damaged, is replaced. Files become readable for all and durable first.
// On an error the version before is still current, or if it has this id,
// perhaps the new one; Discard removes what there is.
func (g *Stage) Commit(id string) error {
	if !checkID(id) {
		return fmt.Errorf("internal error: version %q", id)
	}
	if err := settle(g.Dir); err != nil {
		return err
	}
	dir := filepath.Join(g.store.dir, g.name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := g.place(id); err != nil {
		return err
	}
	// Durable before Discard removes what was replaced.
	if err := errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(g.store.dir)); err != nil {
		return err
	}
	return errors.Join(g.store.SetCurrent(g.name, id), g.Discard())
}

// place puts Dir where the version id belongs, and what is there into the
// stage, in one step: those who read, and whoever comes after a crash, find
// the old one or the new.
func (g *Stage) place(id string) error {
	to := g.store.Dir(g.name, id)
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(g.Dir, to)
	} else if err != nil {
		return err
	}
	err := g.store.exchange(g.Dir, to)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return g.placeAside(id)
	}
	return err
}

// placeAside is place in two steps, for file systems that cannot exchange. In
// between those who read find nothing; if we die there, [Store.clear] puts
// the old one back.
func (g *Stage) placeAside(id string) error {
	to, old := g.store.Dir(g.name, id), filepath.Join(g.top, aside+id)
	if err := os.Rename(to, old); err != nil {
		return err
	}
	if err := os.Rename(g.Dir, to); err != nil {
		return errors.Join(err, os.Rename(old, to))
	}
	return nil
}

// aside begins the name, in a stage, of a version that was moved there for
// another of its id; the id follows.
const aside = "old-"

// clear removes top, which is staged and of name, after putting back a version
// that its maker moved aside and did not replace. It succeeds if top is not
// there.
// Preconditions: the caller holds the lock of name.
func (s *Store) clear(top, name string) error {
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), aside)
		if !ok || !checkID(id) {
			continue
		}
		if _, err := os.Lstat(s.Dir(name, id)); err == nil {
			continue // replaced
		}
		// All of the name may have been deleted since.
		if err := os.Rename(filepath.Join(top, e.Name()), s.Dir(name, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return removeAll(top)
}

// exchange swaps two paths that are there in one step. Where the file system
// cannot, the error is EINVAL or, of an old kernel, ENOSYS.
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", a, b, err)
	}
	return nil
}

// Discard removes what is staged. It may be called after Commit, and twice.
func (g *Stage) Discard() error { return g.store.clear(g.top, g.name) }

// settle makes the tree at dir readable for all, whatever the umask was, and
// durable.
func settle(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		perm := fs.FileMode(0o644)
		switch {
		case d.IsDir():
			perm = 0o755
		case !d.Type().IsRegular():
			return fmt.Errorf("internal error: %s is neither file nor directory", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Chmod(perm); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
		return nil
	})
}
