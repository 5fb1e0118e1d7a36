package workdisk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/plainfile"
)

// Open opens a disk for reading; see [disk.Work]. Its journal is replayed first.
func (d *Disks) Open(ctx context.Context, l disk.Layer) (disk.Files, error) {
	fs, err := d.open(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("read work disk: %w", told(err))
	}
	return fs, nil
}

func (d *Disks) open(ctx context.Context, l disk.Layer) (*files, error) {
	// Of one that cannot be put right, there may be something to read.
	if err := ext4.Replay(ctx, d.Path(l), l.UID); err != nil && errkind.Of(err) != errkind.Conflict {
		return nil, err
	}
	f, err := plainfile.Open(d.Path(l), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		var s *ext4.FS
		if s, err = ext4.OpenFS(f, fi.Size()); err == nil {
			return &files{f, s}, nil
		}
	}
	return nil, errors.Join(err, f.Close())
}

// files are those of one disk.
type files struct {
	*os.File
	fs *ext4.FS
}

func (f *files) Open(path string) (disk.File, error) {
	opened, err := f.fs.Open(path)
	if err != nil {
		return nil, told(err)
	}
	return file{opened}, nil
}

// file is one of a disk.
type file struct{ *ext4.File }

func (f file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, told(err)
}

// told says of damage that it is what [disk.ErrDamaged] is.
func told(err error) error {
	if errors.Is(err, ext4.ErrDamaged) || errors.Is(err, ext4.ErrNoFileSystem) {
		return fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	return err
}
