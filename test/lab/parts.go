package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
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
	name := hex.EncodeToString(sum[:6])
	dir := filepath.Join(cache, name)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := empty(cache, lock.Name()); err != nil {
		return "", err
	}
	tmp := filepath.Join(cache, ".building")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "bash", "-s", tmp)
	script, err := os.CreateTemp(cache, ".script")
	if err != nil {
		return "", err
	}
	defer os.Remove(script.Name())
	defer script.Close()
	if _, err := script.Write(buildScript); err != nil {
		return "", err
	}
	if _, err := script.Seek(0, 0); err != nil {
		return "", err
	}
	build.Stdin = script
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the lab: %w\n%s", err, out)
	}
	return dir, os.Rename(tmp, dir)
}

// empty removes everything in dir but the file keep.
func empty(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); path != keep {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}
