// Package templatefs keeps templates as files, in a directory that several
// processes may use at once. [banger/internal/filestore] is how one is there
// whole or not at all; its name of a thing is a template's ID.
//
//	<dir>/<id>/current             symbolic link to the one version
//	<dir>/<id>/<version>/          named after the content: a template of the same
//	                               key that is made anew stands elsewhere
//	    manifest.json              the record
//	    ram state root work        the template
//	    used                       empty; its mtime is when it was last used
//	    damaged                    there if it was set aside: why
//	<dir>/.staging/<id>/tmp/       where one is being made
//	<dir>/.lock/<id>               held (flock) by whoever makes or removes
//
// All but what is staged may be read by every user, for VMMs run as users of
// their own, and written by nobody but root.
package templatefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/filestore"
	"banger/internal/template"
)

// Library implements [template.Library]. Use [Open] to get one.
type Library struct {
	store *filestore.Store
	dir   string // absolute
	now   func() time.Time

	// testOnlyStep, if not nil, hears of each step of publishing before it
	// is taken, and makes it fail.
	testOnlyStep func(step string) error
}

var _ template.Library = (*Library)(nil)

// Open returns the library in dir, which is made if it is not there. What
// makers that died left behind is removed, as far as it can be.
func Open(dir string) (*Library, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	l := &Library{dir: dir, now: time.Now}
	if l.store, err = filestore.Open(dir); err == nil {
		err = l.sweep()
	}
	if err != nil {
		return nil, fmt.Errorf("open template library: %w", err)
	}
	return l, nil
}

// List returns every template, damaged ones too, by ID.
func (l *Library) List(ctx context.Context) ([]template.Template, error) {
	ids, err := l.store.Names()
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var all []template.Template
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := l.Get(ctx, id)
		if errkind.Of(err) == errkind.NotFound {
			continue // removed meanwhile, or none of ours
		}
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// Get returns a template, damaged or not.
func (l *Library) Get(_ context.Context, id string) (template.Template, error) {
	t, _, err := l.look(id)
	return t, err
}

// Use returns a template that is about to be used. It notes that first, so
// that whoever prunes sees it.
func (l *Library) Use(ctx context.Context, id string) (template.Template, error) {
	t, r, err := l.look(id)
	if err == nil {
		err = fault(t)
	}
	if err != nil {
		return template.Template{}, err
	}
	t.UsedAt = l.now().UTC()
	// Without the note it is only pruned sooner.
	_ = touch(filepath.Join(t.Dir, usedName), t.UsedAt)
	if err := l.compare(ctx, t, r, template.StateName); err != nil {
		return template.Template{}, err
	}
	return t, nil
}

// Verify reads all of a template.
func (l *Library) Verify(ctx context.Context, id string) error {
	t, r, err := l.look(id)
	if err == nil {
		err = fault(t)
	}
	if err != nil {
		return err
	}
	return l.compare(ctx, t, r, names...)
}

// look returns a template and its record, which says nothing if the template
// is damaged.
func (l *Library) look(id string) (template.Template, record, error) {
	version, err := l.version(id)
	if errors.Is(err, fs.ErrNotExist) {
		return template.Template{}, record{}, unknown(id)
	}
	t := template.Template{ID: id}
	var r record
	if err == nil {
		t.Dir = l.store.Dir(id, version)
		r, err = l.read(id, version)
	}
	if err == nil {
		t = r.template(t.Dir)
		err = l.store.CheckFiles(id, version, r.files())
	}
	if t, err = l.judge(t, err); err != nil {
		return template.Template{}, record{}, err
	}
	l.addMarks(&t)
	return t, r, nil
}

// judge returns a template as err, of reading it, shows it to be; an error if
// that tells nothing of the template, or if it is there no longer.
func (l *Library) judge(t template.Template, err error) (template.Template, error) {
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return template.Template{}, err
	case l.gone(t):
		return template.Template{}, unknown(t.ID)
	case !damage(err):
		return template.Template{}, fmt.Errorf("read template %s: %w", t.ID, err)
	default:
		t.Damaged = clip(err.Error())
	}
	return t, nil
}

// version returns the version of a template that is there. If there is none,
// the error is an [fs.ErrNotExist].
func (l *Library) version(id string) (string, error) {
	if !isHex(id, idDigits) {
		return "", fs.ErrNotExist
	}
	return l.store.Current(id)
}

// gone reports whether a template that was there no longer is.
func (l *Library) gone(t template.Template) bool {
	version, err := l.version(t.ID)
	return errors.Is(err, fs.ErrNotExist) || err == nil && t.Dir != "" && l.store.Dir(t.ID, version) != t.Dir
}

// compare reads files of a template through, and returns an error unless they
// are what they were when it was published.
func (l *Library) compare(ctx context.Context, t template.Template, r record, names ...string) error {
	t, err := l.judge(t, r.compare(ctx, t.Dir, names))
	if err != nil {
		return err
	}
	return fault(t)
}

// damage reports whether an error of reading a template tells of the template,
// not of the reader.
func damage(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return true // what was read makes no sense
	}
	switch errno {
	case unix.ENOENT, unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.EINVAL, unix.ENOTDIR, unix.EISDIR:
		return true
	}
	return false
}

// fault is the error of using a template; nil if it is not damaged.
func fault(t template.Template) error {
	if t.Damaged == "" {
		return nil
	}
	err := fmt.Errorf("template %s: %w: %s", t.ID, template.ErrDamaged, t.Damaged)
	return errkind.WithHint(err, "banger template delete "+t.ID)
}

func unknown(id string) error {
	return errkind.WithHint(errkind.New(errkind.NotFound, "no template %q", clip(id)), "banger template list")
}

// touch makes the file at path have been changed at a time.
func touch(path string, at time.Time) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Chtimes(path, at, at))
}

// clip makes one line of text, of at most 500 bytes.
func clip(text string) string {
	const most = 500
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…"
	}
	return text
}
