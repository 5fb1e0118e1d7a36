package templatefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"banger/internal/errkind"
	"banger/internal/filestore"
	"banger/internal/template"
)

// Delete removes a template. It waits for somebody else who removes it.
func (l *Library) Delete(ctx context.Context, id string) error {
	if _, err := l.version(id); errors.Is(err, fs.ErrNotExist) {
		return unknown(id) // also while it is being made
	}
	unlock, err := l.store.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.version(id); errors.Is(err, fs.ErrNotExist) {
		return unknown(id)
	}
	if err := l.store.DeleteAll(id); err != nil {
		return fmt.Errorf("delete template %s: %w", id, err)
	}
	return nil
}

// Prune removes what nobody needs.
func (l *Library) Prune(ctx context.Context, o template.PruneOptions) ([]template.Template, error) {
	// Opening is what removes stages without a maker.
	_, err := filestore.Open(l.dir)
	errs := []error{err, l.sweep()}
	all, err := l.List(ctx)
	errs = append(errs, err)
	var removed []template.Template
	for _, t := range o.Choose(all, l.now()) {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		ok, err := l.prune(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("prune template %s: %w", t.ID, err))
		}
		if ok {
			removed = append(removed, t)
		}
	}
	return removed, errors.Join(errs...)
}

// prune removes one template, unless somebody came between.
func (l *Library) prune(t template.Template) (bool, error) {
	unlock, ok, err := l.store.TryLock(t.ID)
	if err != nil || !ok {
		return false, err
	}
	defer unlock()
	now, _, err := l.look(t.ID)
	if errkind.Of(err) == errkind.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if now.Dir != t.Dir || now.UsedAt.After(t.UsedAt) {
		return false, nil
	}
	err = l.store.DeleteAll(t.ID)
	return err == nil, err
}

// sweep removes what there is of templates whose makers died at the last step,
// when all was there but not yet published.
func (l *Library) sweep() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		id := e.Name()
		if _, err := l.version(id); !isHex(id, idDigits) || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		unlock, ok, err := l.store.TryLock(id)
		if err != nil || !ok { // its maker lives
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.clear(id))
		unlock()
	}
	return errors.Join(errs...)
}

// clear removes what there is under an ID if it is no template.
// Preconditions: the caller holds the lock of id.
func (l *Library) clear(id string) error {
	if _, err := l.version(id); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return l.store.DeleteAll(id)
}
