package ext4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/plainfile"
)

// Replay replays the journal of the file system in the file at path, as the
// next mount would do, and does nothing if none has to be. Nobody may use the
// file meanwhile. It is a guest's: what replays it runs as user uid, to whom the
// file belongs. A journal of which nothing can be made is replaced by an empty
// one. If that takes more than can be put right without asking, the error is of
// kind [errkind.Conflict]; it can still be read what there is.
func Replay(ctx context.Context, path string, uid uint32) error {
	due, err := replayDue(path)
	if err == nil && due {
		// Where e2fsck finds no journal it goes on with a whole check, and
		// -y would agree to lose files.
		err = putRight(ctx, uid, "-E", "journal_only", "-p", path)
	}
	if err != nil {
		return fmt.Errorf("replay ext4 %s: %w", path, explain(err))
	}
	return nil
}

// replayDue reports whether a file system was not unmounted. What stands at
// path may have been planted there.
func replayDue(path string) (bool, error) {
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b, _, err := readSuper(f)
	if err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint32(b[offIncompat:])&incompatRecover != 0, nil
}

// putRight runs e2fsck as user uid. That it could not do what it was to do is an
// error of kind [errkind.Conflict].
func putRight(ctx context.Context, uid uint32, args ...string) error {
	as := &hostcmd.Credential{UID: uid, GID: uid}
	_, err := hostcmd.Cmd{Argv: append([]string{"e2fsck"}, args...), Tied: true, Credential: as}.Run(ctx)
	var exit *hostcmd.ExitError
	// 1: errors were put right; 4 and 8: some were not, or nothing could be made
	// of it (e2fsck(8)).
	switch {
	case errors.As(err, &exit) && exit.Code == 1:
		return nil
	case errors.As(err, &exit) && exit.Code < 128:
		return errkind.New(errkind.Conflict, "the file system cannot be put right: %w", err)
	}
	return err
}
