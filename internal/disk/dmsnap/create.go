package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/atomicfile"
	"banger/internal/disk"
	"banger/internal/failpoint"
	"banger/internal/sparse"
)

// staging is the name of a COW that is not whole yet.
const staging = ".root.cow.*.tmp"

// Create makes a COW file that holds nothing yet, or what a template's holds,
// and before it the record of what it is made over. Both are root's: a VMM
// opens the device, never the file.
func (ls *Layers) Create(ctx context.Context, l disk.Layer) error {
	if err := ls.create(ctx, l); err != nil {
		return fmt.Errorf("create root disk: %w", err)
	}
	return nil
}

func (ls *Layers) create(ctx context.Context, l disk.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := ls.checkName(l); err != nil {
		return err
	}
	_, err := os.Lstat(ls.Path(l))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := removeBegun(l.Dir); err != nil {
		return err
	}
	r, template, err := begin(l)
	if err != nil {
		return err
	}
	if template != nil {
		defer template.Close()
	}
	if err := ls.build(ctx, l, r, template); err != nil {
		return errors.Join(err, removeBegun(l.Dir))
	}
	return nil
}

// begin returns the record of a new layer and, if it is to stand on a template,
// that one's COW. It is as large as the template's then, for the guest knows
// its size.
func begin(l disk.Layer) (r record, template *os.File, err error) {
	base, size, err := openBase(l.Base)
	if err != nil {
		return record{}, nil, err
	}
	base.Close()
	if l.Template == "" {
		r, err = newRecord(l, size)
		return r, nil, err
	}
	template, below, err := openTemplate(l, size)
	if err != nil {
		return record{}, nil, err
	}
	below.ID, below.Base, below.BaseID = l.ID, l.Base, l.BaseID
	return below, template, nil
}

// build makes COW and record. On an error something of them may be left.
func (ls *Layers) build(ctx context.Context, l disk.Layer, r record, template *os.File) error {
	f, err := os.CreateTemp(l.Dir, staging)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(ctx, f, r, template), f.Close()); err != nil {
		return err
	}
	if err := failpoint.Hit("dmsnap/filled"); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(l.Dir, recordName), r.encode(), 0o600); err != nil {
		return err
	}
	if err := failpoint.Hit("dmsnap/recorded"); err != nil {
		return err
	}
	return os.Rename(f.Name(), ls.Path(l))
}

// fill makes the staged file durable before it gets its name. Its name need
// not be, for a guest's first flush makes it so.
func fill(ctx context.Context, f *os.File, r record, template *os.File) error {
	b, err := firstChunk(r)
	if err != nil {
		return err
	}
	if template != nil {
		if err := sparse.Copy(ctx, f, template, cowSize(r.Size)); err != nil {
			return fmt.Errorf("copy template's layer: %w", err)
		}
	}
	if err := failpoint.Hit("dmsnap/copied"); err != nil {
		return err
	}
	if err := f.Truncate(cowSize(r.Size)); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil { // its mode is 0600 already
		return err
	}
	return f.Sync()
}

// removeBegun removes what a Create left that did not come to its end: without
// the COW itself a record means nothing.
func removeBegun(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() == recordName || staged(e.Name(), cowName) || staged(e.Name(), recordName) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// staged reports whether a file is one that was to be renamed to name.
func staged(file, name string) bool {
	return strings.HasPrefix(file, "."+name+".") && strings.HasSuffix(file, ".tmp")
}

// openBase opens the image below, which must be a file that can be one.
func openBase(path string) (*os.File, int64, error) {
	if !filepath.IsAbs(path) {
		return nil, 0, fmt.Errorf("image %q: its path is not absolute", path)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 || fi.Size()%sectorSize != 0 {
		return nil, 0, fmt.Errorf("image %s: no raw disk (%v, %d bytes)", path, fi.Mode(), fi.Size())
	}
	f, err := os.Open(path)
	return f, fi.Size(), err
}
