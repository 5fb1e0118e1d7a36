package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/atomicfile"
)

// A Stage is a version being made. Its maker holds the lock of its name from
// before [Store.Stage] until after [Stage.Commit] or [Stage.Discard].
type Stage struct {
	Dir string // what will be the version
	Tmp string // for what is needed on the way; never part of a version
	top string
	s   *Store
	nam string
}

// Stage begins a version of name. What an earlier maker left is removed.
// Preconditions: the caller holds the lock of name.
func (s *Store) Stage(name string) (*Stage, error) {
	top := filepath.Join(s.dir, staging, name)
	if err := removeAll(top); err != nil {
		return nil, fmt.Errorf("remove what was left half made: %w", err)
	}
	g := &Stage{Dir: filepath.Join(top, "new"), Tmp: filepath.Join(top, "tmp"), top: top, s: s, nam: name}
	for _, d := range []string{top, g.Dir, g.Tmp} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, errors.Join(err, removeAll(top))
		}
	}
	return g, nil
}

// Commit makes what is in Dir the current version of the name, under id, which
// takes hexadecimal digits; one of that id that is there is replaced. Files
// become readable for all and durable first. On an error the version before is
// still current; Discard removes what there is.
func (g *Stage) Commit(id string) error {
	if !checkID(id) {
		return fmt.Errorf("internal error: version %q", id)
	}
	if err := settle(g.Dir); err != nil {
		return err
	}
	dir := filepath.Join(g.s.dir, g.nam)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	to := filepath.Join(dir, id)
	if _, err := os.Lstat(to); err == nil {
		// Beside the stage: a version of this id that was damaged.
		if err := os.Rename(to, filepath.Join(g.Tmp, "old")); err != nil {
			return err
		}
	}
	if err := os.Rename(g.Dir, to); err != nil {
		return err
	}
	if err := errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(g.s.dir)); err != nil {
		return err
	}
	return errors.Join(g.s.SetCurrent(g.nam, id), g.Discard())
}

// Discard removes what is staged. It may be called after Commit, and twice.
func (g *Stage) Discard() error { return removeAll(g.top) }

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
