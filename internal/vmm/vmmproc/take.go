package vmmproc

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/plainfile"
	"banger/internal/sparse"
)

// Take moves a file that a VMM wrote, of at most limit bytes, out of its directory
// to a path that is not there yet. Nobody but the caller's user has access to it
// then. On an error something may be left in either place.
func Take(ctx context.Context, from, to string, limit int64) error {
	src, err := plainfile.Open(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	if fi.Size() == 0 || fi.Size() > limit {
		return fmt.Errorf("%s: %d bytes, where 1 to %d are right", from, fi.Size(), limit)
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = sparse.Copy(ctx, dst, src, fi.Size())
	return errors.Join(err, dst.Close(), os.Remove(from))
}
