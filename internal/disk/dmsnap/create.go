package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/atomicfile"
	"banger/internal/disk"
)

// staging is the name of a COW that is not whole yet.
const staging = ".root.cow.*.tmp"

// Create makes a COW file that holds nothing yet, and before it the record of
// what it is made over. Both are root's: a VMM opens the device, never the file.
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
	base, size, err := openBase(l.Base)
	if err != nil {
		return err
	}
	base.Close()
	r, err := newRecord(l, size)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(l.Dir, staging)
	if err != nil {
		return err
	}
	err = errors.Join(fill(f, r), f.Close())
	record := filepath.Join(l.Dir, recordName)
	if err == nil {
		err = atomicfile.Write(record, r.encode(), 0o600)
	}
	if err == nil {
		err = os.Rename(f.Name(), ls.Path(l))
	}
	if err != nil {
		os.Remove(f.Name())
		os.Remove(record)
	}
	return err
}

// fill makes the staged file durable before it gets its name. Its name need
// not be, for a guest's first flush makes it so.
func fill(f *os.File, r record) error {
	if err := f.Truncate(cowSize(r.Size)); err != nil {
		return err
	}
	if _, err := f.WriteAt(cowHeader(), 0); err != nil { // its mode is 0600 already
		return err
	}
	return f.Sync()
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
