package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// What is not whole yet is called
//
//	.banger-NAME-FILE.part
//
// in the directory where it is to be; NAME stands for its name and FILE for its
// size and time of change, each the beginning of a hash, so that a name of any
// length has room. It is a file, or a directory with all that is in it; within
// one of those, directories have their names from the beginning. Whoever
// writes a part holds a lock on it (flock(2)). One of the same NAME and another
// FILE is of an older version of the file; the next copy of it removes that.

var stagePattern = regexp.MustCompile(`^\.banger-([0-9a-f]{16})-[0-9a-f]{16}\.part$`)

func isStage(name string) bool { return stagePattern.MatchString(name) }

func stageName(name string, size, mtime int64) string {
	return fmt.Sprintf(".banger-%s-%s.part", hash(name), hash(fmt.Sprint(size, " ", mtime)))
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%x", sum[:8])
}

// lockTime is how long a part is waited for that a copy, which has just been
// interrupted, may be letting go of.
const lockTime = 2 * time.Second

// open opens the file's part, cut or empty so that in.at bytes of it are there.
func (in *incoming) open(ctx context.Context) error {
	in.stage = stageName(in.name, in.size, in.mtime)
	if err := in.removeOlder(in.name, in.stage); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTime, ErrBusy)
	defer cancel()
	for ctx.Err() == nil {
		f, err := openPart(in.root, in.stage)
		if err != nil {
			return err
		}
		ours, err := lock(ctx, f, in.root, in.stage)
		switch {
		case err != nil:
			f.Close()
			return err
		case ours:
			in.f = f
			return in.cut()
		}
		f.Close() // another copy has put it in its place
	}
	return context.Cause(ctx)
}

// removeOlder removes parts of older versions of the file that is to be called
// name. The directory is read once.
func (l *level) removeOlder(name, stage string) error {
	if l.parts == nil {
		l.parts = make(map[string][]string)
		if l.fresh {
			return nil // nothing can be there
		}
		names, err := list(l.root)
		if err != nil {
			return err
		}
		for _, n := range names {
			if m := stagePattern.FindStringSubmatch(n); m != nil {
				l.parts[m[1]] = append(l.parts[m[1]], n)
			}
		}
	}
	if len(l.parts) == 0 {
		return nil
	}
	for _, part := range l.parts[hash(name)] {
		if part == stage {
			continue
		}
		if err := l.root.RemoveAll(part); err != nil {
			return err
		}
	}
	return nil
}

// openPart opens or makes a part. What stands at its name and can be none, is
// removed.
func openPart(d *os.Root, name string) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE | unix.O_NONBLOCK
	fi, err := d.Lstat(name)
	switch {
	case err == nil && !plain(fi):
		if err := d.RemoveAll(name); err != nil {
			return nil, err
		}
		fallthrough
	case err != nil:
		flags |= os.O_EXCL // also not at the end of a link
	}
	f, err := d.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = ErrBusy // somebody was quicker
	}
	return f, err
}

// plain reports whether fi is a regular file with this name alone.
func plain(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.Mode().IsRegular() && st.Nlink == 1
}

// lock locks a part, and reports whether it still is the one of that name. It
// waits for whoever has it until ctx ends, whose cause is the error then.
func lock(ctx context.Context, f *os.File, d *os.Root, name string) (bool, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break // it is ours; or this file system has no locks, as some of a network
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

// cut leaves of a part what the sender leaves out.
func (in *incoming) cut() error {
	fi, err := in.f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < in.at {
		return invalid("it begins at byte %d, and there are %d", in.at, fi.Size())
	}
	if fi.Size() > in.at {
		if err := in.f.Truncate(in.at); err != nil {
			return err
		}
	}
	_, err = in.f.Seek(in.at, io.SeekStart)
	return err
}

// offer tells from where on files are wanted.
func (r *Receiver) offer(o *wire.CopyOffer) (*wire.CopyHave, error) {
	l := r.levels[len(r.levels)-1]
	if n := len(o.GetFiles()); n > maxOffer || n > 1 && len(r.levels) == 1 {
		return nil, invalid("an offer of %d files", n)
	}
	have := &wire.CopyHave{}
	for _, f := range o.GetFiles() {
		p := place{l, string(f.GetName()), ""}
		if len(r.levels) == 1 {
			var err error
			if p, err = r.first(); err != nil {
				return nil, err
			}
		}
		if !validName(p.name) || f.GetSizeBytes() < 0 || f.GetSizeBytes() == math.MaxInt64 {
			return nil, invalid("an offer of %q with %d bytes", p.name, f.GetSizeBytes())
		}
		n := p.has(f)
		if n == f.GetSizeBytes() && n > 0 {
			if len(r.levels) == 1 {
				r.next++ // it will not come
			}
			r.advance(join(l.path, p.name), n)
		}
		have.Offsets = append(have.Offsets, n)
	}
	return have, nil
}

// has returns how many bytes of a file are there: all if it is in its place,
// else what its part holds, but the last byte of that: a file that does not
// come is taken for whole.
func (p place) has(f *wire.CopyFile) int64 {
	size := f.GetSizeBytes()
	fi, err := p.root.Lstat(p.name)
	if err == nil && fi.Mode().IsRegular() && fi.Size() == size && mtime(fi) == f.GetMtimeNs() {
		return size
	}
	fi, err = p.root.Lstat(stageName(p.name, size, f.GetMtimeNs()))
	if err != nil || !plain(fi) {
		return 0
	}
	return max(0, min(fi.Size(), size-1))
}
