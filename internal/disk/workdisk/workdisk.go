// Package workdisk makes work disks as ext4 file systems in sparse files.
//
// Making a file system takes tens of milliseconds, most of them for starting a
// program and for its fsyncs. So what the first one of a size consists of, less
// than a megabyte that is not zero, is kept in memory, and later ones of that
// size are written from there. One that begins as the work disk of a template
// is a copy of that. They have the same UUID: a
// guest finds its disk by its serial, has one of them, and the host mounts none.
package workdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/plainfile"
	"banger/internal/sparse"
)

const (
	fileName = "work.ext4"
	staging  = ".work.ext4.*.tmp"

	minSize = 16 << 20 // bytes; what ext4 with a journal fits in
	maxSize = 16 << 40 // bytes; what one file of the host's ext4 can hold
	// blockSize divides a disk's size, so that every part of it is used.
	blockSize = 4096
)

// Grow makes the ext4 file system in the file at path size bytes large, as a
// user without rights: the file is a guest's; it is ext4.Grow.
type Grow func(ctx context.Context, path string, size int64, uid uint32) error

// Make makes an empty ext4 file system of size bytes in a sparse file at path,
// where there is none; it is ext4.MakeEmpty.
type Make func(ctx context.Context, path string, size int64) error

// Disks is the [disk.Work] of all drivers. Make it with [New]. Its methods may
// be called concurrently.
type Disks struct {
	mkfs Make
	grow Grow

	mu        sync.Mutex
	templates map[int64]template // guarded by mu; by size
}

var _ disk.Work = (*Disks)(nil)

// New returns work disks whose file systems mkfs makes and grow makes larger.
func New(mkfs Make, grow Grow) *Disks {
	return &Disks{mkfs: mkfs, grow: grow, templates: map[int64]template{}}
}

// Path is the file.
func (*Disks) Path(l disk.Layer) string { return filepath.Join(l.Dir, fileName) }

// Create makes a disk; see [disk.Work].
func (d *Disks) Create(ctx context.Context, l disk.Layer) error {
	if err := checkSize(l.SizeBytes); err != nil {
		return err
	}
	if err := d.create(ctx, l); err != nil {
		return fmt.Errorf("create work disk: %w", err)
	}
	return nil
}

func checkSize(n int64) error {
	if n < minSize || n > maxSize || n%blockSize != 0 {
		return errkind.New(errkind.Usage, "a work disk of %d bytes: it has %d MiB to %d TiB, in whole blocks of %d bytes",
			n, minSize>>20, maxSize>>40, blockSize)
	}
	return nil
}

// Grow makes a disk larger; see [disk.Work].
func (d *Disks) Grow(ctx context.Context, l disk.Layer) error {
	if err := checkSize(l.SizeBytes); err != nil {
		return err
	}
	f, err := plainfile.Open(d.Path(l), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("grow work disk: %w", err)
	}
	fi, err := f.Stat()
	if err = errors.Join(err, f.Close()); err == nil && fi.Size() < l.SizeBytes {
		err = d.grow(ctx, d.Path(l), l.SizeBytes, l.UID)
	}
	if err != nil {
		return fmt.Errorf("grow work disk: %w", err)
	}
	return nil
}

func (d *Disks) create(ctx context.Context, l disk.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	path := d.Path(l)
	_, err := os.Lstat(path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(l.Dir, staging)
	if err != nil {
		return err
	}
	err = errors.Join(f.Close(), d.fill(ctx, f.Name(), l))
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// fill makes the staged file durable before it gets its name: after a crash of
// the host the disk is whole, or not there and made anew. Its name need not be
// durable, for a guest's first flush makes it so.
func (d *Disks) fill(ctx context.Context, path string, l disk.Layer) (err error) {
	from, err := openTemplate(l)
	if err != nil {
		return err
	}
	if from != nil {
		defer from.Close()
	}
	t, known := d.known(l.SizeBytes)
	if from == nil && !known {
		// The name is ours now; the file would be in the way.
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := d.mkfs(ctx, path, l.SizeBytes); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	switch {
	case from != nil:
		err = sparse.Copy(ctx, f, from, l.SizeBytes)
	case known:
		err = t.write(f, l.SizeBytes)
	default:
		err = d.learn(f, l.SizeBytes)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(int(l.UID), int(l.UID)), f.Chmod(0o600), f.Sync())
}

// openTemplate opens the disk that a new one begins as a copy of; nil: it begins
// empty.
func openTemplate(l disk.Layer) (*os.File, error) {
	if l.Template == "" {
		return nil, nil
	}
	f, err := plainfile.Open(l.Template, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() > l.SizeBytes {
		err = fmt.Errorf("%s has %d bytes, which a disk of %d cannot hold", l.Template, fi.Size(), l.SizeBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// known returns what an empty disk consists of, if it is kept.
func (d *Disks) known(size int64) (template, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.templates[size]
	return t, ok
}

// learn keeps what a file system that was just made consists of, if it is not
// too much. Two machines at once, the first of their size, both teach it.
func (d *Disks) learn(f *os.File, size int64) error {
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() != size {
		return errors.Join(err, errors.New("what was made is no file of that size"))
	}
	t, err := readTemplate(f, size)
	if errors.Is(err, errTooMuch) {
		return nil
	}
	if err != nil {
		return err
	}
	d.keep(size, t)
	return nil
}

// keep keeps a template, in place of another if there are many.
func (d *Disks) keep(size int64, t template) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for other := range d.templates {
		if len(d.templates) < maxTemplates {
			break
		}
		delete(d.templates, other)
	}
	d.templates[size] = t
}

// Delete removes the disk, or whatever was planted in its place, and what a
// crash left of making it.
func (d *Disks) Delete(_ context.Context, l disk.Layer) error {
	dir := strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(l.Dir)
	paths, err := filepath.Glob(filepath.Join(dir, staging))
	if err != nil {
		return fmt.Errorf("delete work disk: %w", err)
	}
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("delete work disk: %w", err))
		}
	}
	// A VMM that was broken into may have left a directory there.
	if err := os.RemoveAll(d.Path(l)); err != nil {
		errs = append(errs, fmt.Errorf("delete work disk: %w", err))
	}
	return errors.Join(errs...)
}
