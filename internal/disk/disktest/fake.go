package disktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"banger/internal/disk"
	"banger/internal/sparse"
)

// Fault decides what fails. It is asked with "before OP" when OP is about to
// have its effect and "after OP" when it has had it. It may be nil: nothing
// fails. It must be set before the fake is used, and may be called
// concurrently.
type Fault func(op string) error

func (f Fault) around(op string, do func() error) error {
	if f == nil {
		return do()
	}
	if err := f("before " + op); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return f("after " + op)
}

const (
	minSize = 16 << 20 // bytes
	maxSize = 64 << 40
)

// Layers is a fake [disk.Layers]. A layer is one file, and a second one while
// it is attached.
type Layers struct {
	// Fail's operations are "disk.create", "disk.attach", "disk.detach" and
	// "disk.delete".
	Fail Fault
}

var _ disk.Layers = Layers{}

// Path is where the layer's file stands.
func (Layers) Path(l disk.Layer) string { return filepath.Join(l.Dir, "root.layer") }

func (ls Layers) device(l disk.Layer) string { return ls.Path(l) + ".attached" }

// Check finds nothing missing.
func (Layers) Check(context.Context) error { return nil }

// Create makes the layer's file.
func (ls Layers) Create(ctx context.Context, l disk.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ls.Fail.around("disk.create", func() error {
		if err := checkBase(l.Base); err != nil {
			return err
		}
		if l.SizeBytes > maxSize {
			return fmt.Errorf("a layer of %d bytes is too large", l.SizeBytes)
		}
		if l.Template != "" {
			if _, err := os.Stat(l.Template); err != nil {
				return err
			}
		}
		return makeFile(ls.Path(l), 1, l.UID)
	})
}

// Attach makes the second file.
func (ls Layers) Attach(ctx context.Context, l disk.Layer) (d disk.Device, err error) {
	if ctx.Err() != nil {
		return disk.Device{}, context.Cause(ctx)
	}
	err = ls.Fail.around("disk.attach", func() error {
		if err := checkBase(l.Base); err != nil {
			return err
		}
		if _, err := os.Lstat(ls.Path(l)); err != nil {
			return err
		}
		return makeFile(ls.device(l), 0, l.UID)
	})
	if err != nil {
		return disk.Device{}, err
	}
	return disk.Device{Path: ls.device(l), Format: "raw"}, nil
}

// Detach removes the second file.
func (ls Layers) Detach(_ context.Context, l disk.Layer) error {
	return ls.Fail.around("disk.detach", func() error { return remove(ls.device(l)) })
}

// Delete removes both files.
func (ls Layers) Delete(_ context.Context, l disk.Layer) error {
	return ls.Fail.around("disk.delete", func() error {
		return errors.Join(remove(ls.device(l)), remove(ls.Path(l)))
	})
}

// Work is a fake [disk.Work]: a sparse file without a file system. What stands
// on the disk stands in the directory [WorkRoot] beside it, if that is there.
type Work struct {
	// Fail's operations are "work.create", "work.grow", "work.open" and
	// "work.delete".
	Fail Fault
}

var _ disk.Work = Work{}

// Path is where the file stands.
func (Work) Path(l disk.Layer) string { return filepath.Join(l.Dir, "work.ext4") }

// Create makes the file.
func (w Work) Create(ctx context.Context, l disk.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.Fail.around("work.create", func() error {
		if l.SizeBytes < minSize || l.SizeBytes > maxSize {
			return fmt.Errorf("a work disk of %d bytes is too small or too large", l.SizeBytes)
		}
		return w.make(ctx, l)
	})
}

// make makes the file, as a copy if it is one.
func (w Work) make(ctx context.Context, l disk.Layer) error {
	if _, err := os.Lstat(w.Path(l)); l.Template == "" || err == nil {
		return makeFile(w.Path(l), l.SizeBytes, l.UID)
	}
	from, err := os.Open(l.Template)
	if err != nil {
		return err
	}
	defer from.Close()
	if fi, err := from.Stat(); err != nil || fi.Size() > l.SizeBytes {
		return errors.Join(err, fmt.Errorf("%s is larger than its copy", l.Template))
	}
	if err := makeFile(w.Path(l), l.SizeBytes, l.UID); err != nil {
		return err
	}
	to, err := os.OpenFile(w.Path(l), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(sparse.Copy(ctx, to, from, l.SizeBytes), to.Close())
}

// Grow makes the file longer.
func (w Work) Grow(_ context.Context, l disk.Layer) error {
	return w.Fail.around("work.grow", func() error {
		fi, err := os.Lstat(w.Path(l))
		if err != nil || fi.Size() >= l.SizeBytes {
			return err
		}
		return os.Truncate(w.Path(l), l.SizeBytes)
	})
}

// WorkRoot is the root of what stands on the fake work disk in a machine's
// directory.
func WorkRoot(dir string) string { return filepath.Join(dir, "work.root") }

// Open opens what stands in [WorkRoot].
func (w Work) Open(_ context.Context, l disk.Layer) (files disk.Files, err error) {
	err = w.Fail.around("work.open", func() error {
		_, err := os.Lstat(w.Path(l))
		files = &workFiles{root: WorkRoot(l.Dir)}
		return err
	})
	if err != nil {
		return nil, err
	}
	return files, nil
}

// workFiles are files of the host that stand for those on a disk.
type workFiles struct {
	root string

	mu   sync.Mutex
	open []*os.File // guarded by mu
}

func (w *workFiles) Open(path string) (disk.File, error) {
	f, err := os.Open(filepath.Join(w.root, path))
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, f)
	return workFile{f}, nil
}

func (w *workFiles) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, f := range w.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

type workFile struct{ *os.File }

func (f workFile) Size() int64 {
	fi, err := f.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Delete removes the file, and what stands on it.
func (w Work) Delete(_ context.Context, l disk.Layer) error {
	return w.Fail.around("work.delete", func() error {
		return errors.Join(remove(w.Path(l)), os.RemoveAll(WorkRoot(l.Dir)))
	})
}

func checkBase(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(path) || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return fmt.Errorf("image %s is no raw disk", path)
	}
	return nil
}

// makeFile makes a sparse file for uid unless it is there. Where the caller
// may not give files away it stays the caller's.
func makeFile(path string, size int64, uid uint32) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(int(uid), int(uid))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
