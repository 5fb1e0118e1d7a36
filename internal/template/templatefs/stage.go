package templatefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/errkind"
	"banger/internal/filestore"
	"banger/internal/plainfile"
	"banger/internal/template"
)

// stage implements [template.Stage].
type stage struct {
	l      *Library
	g      *filestore.Stage // its Tmp is where the files are made
	key    template.Key
	unlock func() // nil: ended
}

// Stage begins to make a template. What an earlier maker left is removed.
func (l *Library) Stage(_ context.Context, k template.Key) (template.Stage, error) {
	if err := k.Check(); err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	id := k.ID()
	unlock, ok, err := l.store.TryLock(id)
	if err != nil {
		return nil, fmt.Errorf("stage template %s: %w", id, err)
	}
	if !ok {
		return nil, errkind.New(errkind.Conflict, "template %s is being made or removed", id)
	}
	g, err := l.begin(id)
	if err != nil {
		unlock()
		return nil, err
	}
	return &stage{l: l, g: g, key: k, unlock: unlock}, nil
}

// begin makes the directory of a stage.
// Preconditions: the caller holds the lock of id.
func (l *Library) begin(id string) (*filestore.Stage, error) {
	if _, err := l.version(id); !errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.New(errkind.Conflict, "template %s is there already", id)
	}
	if err := l.clear(id); err != nil {
		return nil, fmt.Errorf("remove what was left of template %s: %w", id, err)
	}
	g, err := l.store.Stage(id)
	if err != nil {
		return nil, fmt.Errorf("stage template %s: %w", id, err)
	}
	return g, nil
}

// Dir is outside of what is published: only the four files are moved there.
func (s *stage) Dir() string { return s.g.Tmp }

// Publish makes the template.
func (s *stage) Publish(ctx context.Context, t template.Template) (template.Template, error) {
	id := s.key.ID()
	if s.unlock == nil {
		return template.Template{}, fmt.Errorf("internal error: template %s is published or discarded", id)
	}
	r, err := s.take(ctx, t)
	if err == nil {
		err = s.commit(r)
	}
	if err != nil {
		return template.Template{}, fmt.Errorf("publish template %s: %w", id, err)
	}
	if t, _, err = s.l.look(id); err == nil {
		err = fault(t)
	}
	if err != nil {
		return template.Template{}, err
	}
	return t, s.Discard()
}

// take moves the files to where they are published from, and returns the
// record of the template.
func (s *stage) take(ctx context.Context, t template.Template) (record, error) {
	if err := checkGuest(t.Token, t.BootID); err != nil {
		return record{}, fmt.Errorf("internal error: %w", err)
	}
	r := record{
		Format: template.Format, ID: s.key.ID(), Key: key(s.key),
		Token: t.Token, BootID: t.BootID, CreatedAt: s.l.now().UTC(),
	}
	for _, name := range names {
		if err := s.l.step("take " + name); err != nil {
			return record{}, err
		}
		f, err := s.takeFile(ctx, name)
		if err != nil {
			return record{}, err
		}
		r.Files = append(r.Files, f)
	}
	return r, nil
}

// takeFile moves one file, which belongs to us from then on.
func (s *stage) takeFile(ctx context.Context, name string) (file, error) {
	path := filepath.Join(s.Dir(), name)
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	if err := errors.Join(f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(0o400)); err != nil {
		return file{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		return file{}, err
	}
	if fi.Size() == 0 {
		return file{}, fmt.Errorf("%s is empty", path)
	}
	got, err := sum(ctx, f)
	if err != nil {
		return file{}, fmt.Errorf("%s: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(s.g.Dir, name)); err != nil {
		return file{}, err
	}
	return file{filestore.File{Name: name, SizeBytes: fi.Size()}, got}, nil
}

// commit writes the record and makes all of it the template.
func (s *stage) commit(r record) error {
	if err := s.l.step("write record"); err != nil {
		return err
	}
	if err := s.g.WriteManifest(r); err != nil {
		return err
	}
	if err := s.l.step("commit"); err != nil {
		return err
	}
	if err := s.g.Commit(r.version()); err != nil {
		return err
	}
	if err := s.l.step("protect"); err != nil {
		return err
	}
	// Against a slip of root's alone: nobody else could write anyway.
	dir := s.l.store.Dir(r.ID, r.version())
	var errs []error
	for _, name := range names {
		errs = append(errs, os.Chmod(filepath.Join(dir, name), 0o444))
	}
	return errors.Join(errs...)
}

// Discard removes what is staged and, if the template was not published after
// all, what there is of it.
func (s *stage) Discard() error {
	if s.unlock == nil {
		return nil // another may be making one by now
	}
	err := errors.Join(s.g.Discard(), s.l.clear(s.key.ID()))
	s.unlock()
	s.unlock = nil
	if err != nil {
		return fmt.Errorf("discard template %s: %w", s.key.ID(), err)
	}
	return nil
}

func (l *Library) step(name string) error {
	if l.testOnlyStep == nil {
		return nil
	}
	return l.testOnlyStep(name)
}
