// Package atomicfile writes files that are there whole or not at all.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write makes the file at path hold data, with permissions perm, owned by
// whoever calls. A reader, also one after a crash of the host, sees the old
// content or the new, never a part. On an error the old file stands and no
// other is left. It may be called concurrently: the last call wins.
func Write(path string, data []byte, perm os.FileMode) error {
	return WriteAs(path, data, perm, -1, -1)
}

// Replace is [Write] of a file that need not survive a crash of the host: who
// reads it sees the old content or the new, but it is not waited for that
// either is on the disk.
func Replace(path string, data []byte, perm os.FileMode) error {
	return replace(path, data, perm, -1, -1, func(*os.File) error { return nil })
}

// WriteAs is [Write] of a file that belongs to the given user and group from
// the moment it is there; -1 is whoever calls. Giving a file away takes root.
func WriteAs(path string, data []byte, perm os.FileMode, uid, gid int) error {
	if err := replace(path, data, perm, uid, gid, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// replace writes a file under another name, has sync see to it that it is on
// the disk, and renames it.
func replace(path string, data []byte, perm os.FileMode, uid, gid int, sync func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close() // closed already on some paths; the first error counts
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if uid != -1 || gid != -1 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := sync(f); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SyncDir makes the entries of a directory durable: without it a file that
// was renamed into it may be gone after a crash of the host.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
