package ext4

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/hostcmd"
	"banger/internal/plainfile"
)

// Grow makes the file system in the file at path sizeBytes large, without
// mounting it. Nobody may use it meanwhile. It is a guest's: programs read it
// as user uid, to whom the file belongs, and it is checked and its journal
// replayed first, as the guest's next mount would do. One that cannot be put
// right without asking is an error of kind [errkind.Conflict], and is left as it
// is; after any other error the file may be longer than its file system, which
// does no harm, and Grow may be called again.
func Grow(ctx context.Context, path string, sizeBytes int64, uid uint32) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("grow ext4 %s: %w", path, explain(err))
		}
	}()
	if sizeBytes%blockSize != 0 {
		return fmt.Errorf("size of %d bytes is no multiple of %d", sizeBytes, blockSize)
	}
	if err := putRight(ctx, uid, "-f", "-p", path); err != nil {
		return err
	}
	if err := lengthen(path, sizeBytes); err != nil {
		return err
	}
	as := &hostcmd.Credential{UID: uid, GID: uid}
	_, err = hostcmd.Cmd{Argv: []string{"resize2fs", path}, Tied: true, Credential: as}.Run(ctx)
	return err
}

// lengthen makes a file at least so long. What stands at path may have been
// planted there.
func lengthen(path string, sizeBytes int64) error {
	f, err := plainfile.Open(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() < sizeBytes {
		err = f.Truncate(sizeBytes)
	}
	return errors.Join(err, f.Close())
}
