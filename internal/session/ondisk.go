package session

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"banger/internal/disk"
	"banger/internal/guest/wire"
	"banger/internal/sessiondir"
	"banger/internal/vm"
)

// guestDir is where the directories of sessions stand on a work disk; it is
// mounted at /root.
const guestDir = "/.local/state/banger/sessions"

// Work is the work disk of a machine that does not run, while it is read.
type Work interface {
	disk.Files
	// Check returns nil if what was read so far is what stood there: nobody
	// has begun to write the disk since.
	Check() error
}

// OnDisk is [Disks] that are read as files of a guest. Open opens the work disk
// of a machine; see lifecycle.Manager.ReadWork.
type OnDisk struct {
	Open func(context.Context, vm.ID) (Work, error)
}

var _ Disks = OnDisk{}

// Status implements [Disks].
func (d OnDisk) Status(ctx context.Context, machine vm.ID, id ID) (st *wire.SessionStatus, err error) {
	err = d.read(ctx, machine, id, func(dir workDir) error {
		s, err := sessiondir.ReadStatus(dir)
		if cerr := dir.work.Check(); cerr != nil {
			return cerr
		}
		if err != nil {
			return err
		}
		st = s.Wire(string(id))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return st, nil
}

// Logs implements [Disks].
func (d OnDisk) Logs(ctx context.Context, machine vm.ID, id ID, r *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error {
	q := sessiondir.QueryOf(r)
	return d.read(ctx, machine, id, func(dir workDir) error {
		if err := dir.exists(q.Streams); err != nil {
			return err
		}
		err := sessiondir.Read(ctx, dir, q, func(c sessiondir.Chunk) error {
			if err := dir.work.Check(); err != nil {
				return err
			}
			return emit(c.Wire())
		})
		if cerr := dir.work.Check(); cerr != nil {
			return cerr // what was made of the rest may be nonsense
		}
		return err
	})
}

// read reads the directory of a session.
func (d OnDisk) read(ctx context.Context, machine vm.ID, id ID, f func(workDir) error) error {
	work, err := d.Open(ctx, machine)
	if err != nil {
		return err
	}
	return errors.Join(f(workDir{work, path.Join(guestDir, string(id))}), work.Close())
}

// workDir is the directory of a session on a disk.
type workDir struct {
	work Work
	path string
}

// Open implements [sessiondir.Dir].
func (d workDir) Open(name string) (sessiondir.File, error) {
	f, err := d.work.Open(path.Join(d.path, name))
	if err != nil {
		return nil, err
	}
	return workFile{f}, nil
}

// exists says whether a log of a stream is there, or why it cannot be seen.
func (d workDir) exists(streams []sessiondir.Stream) (err error) {
	for _, s := range streams {
		for _, name := range []string{".log", ".log.1"} {
			if _, err = d.Open(string(s) + name); !errors.Is(err, fs.ErrNotExist) {
				return nil // what else there is to it, reading tells
			}
		}
	}
	return err
}

// workFile is a file that cannot grow and needs no closing.
type workFile struct{ disk.File }

func (f workFile) Size() (int64, error) { return f.File.Size(), nil }
func (f workFile) Close() error         { return nil }
