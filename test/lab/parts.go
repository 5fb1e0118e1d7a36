package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

//go:embed build.sh
var buildScript []byte

// Parts returns the directory of what the lab is booted from, below cache. It
// is built if it is not there, which takes minutes, and under the hash of its
// recipe; what other recipes made is removed. Two calls at once build once.
func Parts(ctx context.Context, cache string) (string, error) {
	sum := sha256.Sum256(buildScript)
	return once(filepath.Join(cache, "parts"), hex.EncodeToString(sum[:6]), func(tmp string) error {
		if err := os.Mkdir(tmp, 0o755); err != nil {
			return err
		}
		build := exec.CommandContext(ctx, "bash", "-c", string(buildScript), "build.sh", tmp)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the lab: %w\n%s", err, out)
		}
		return nil
	})
}

// Data returns an ext4 image of what is in dir, below cache; it is made if it
// is not there, under a hash of the files' names, sizes and times.
func Data(ctx context.Context, cache, dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d %d\n", path, fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		return "", err
	}
	return once(filepath.Join(cache, "data"), hex.EncodeToString(h.Sum(nil)[:6]), func(tmp string) error {
		out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", dir, tmp, dataSize).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make the lab's data: %w\n%s", err, out)
		}
		return nil
	})
}

// dataSize is that of the image of data, which is sparse.
const dataSize = "40G"

// once returns the path of name in cache. If it is not there, it is made under
// another name by build, and all others are removed.
func once(cache, name string, build func(tmp string) error) (string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(cache+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	path, tmp := filepath.Join(cache, name), filepath.Join(cache, ".tmp")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := empty(cache); err != nil {
		return "", err
	}
	if err := build(tmp); err != nil {
		return "", err
	}
	return path, os.Rename(tmp, path)
}

// empty removes everything in dir.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
