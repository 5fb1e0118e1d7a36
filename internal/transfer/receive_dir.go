package transfer

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// enter begins a directory. One that exists is taken as it is.
func (r *Receiver) enter(ctx context.Context, d *wire.CopyDir) error {
	if len(r.levels) > maxDepth {
		return invalid("a tree more than %d deep", maxDepth)
	}
	p, err := r.place(d.GetName())
	if err != nil {
		return err
	}
	l := &level{path: p.path, name: p.name, mode: r.mode(d.GetMode()), mtime: d.GetMtimeNs()}
	if err := l.open(ctx, p, r.o.Resume); err != nil {
		return fail("write", p.path, err)
	}
	r.levels = append(r.levels, l)
	return nil
}

// open opens the directory at p, or makes it.
func (l *level) open(ctx context.Context, p place, resume bool) (err error) {
	if p.name == "" {
		l.root, err = p.root.OpenRoot(".")
		return err
	}
	fi, err := p.root.Lstat(p.name)
	switch {
	case err == nil:
		l.root, err = openDir(p.root, p.name, fi)
		l.ours = p.ours
		return err
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !p.ours:
		return l.openStage(ctx, p, resume)
	}
	l.fresh, l.ours = true, true
	return l.make(p.root, p.name)
}

// make makes the directory that is to be called name, for now.
func (l *level) make(in *os.Root, name string) error {
	err := in.Mkdir(name, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	l.fresh = err == nil
	fi, err := in.Lstat(name)
	if err != nil {
		return err
	}
	l.root, err = openDir(in, name, fi)
	return err
}

// openStage makes the directory under a name of its own, or goes on with what
// an interrupted copy has left there.
func (l *level) openStage(ctx context.Context, p place, resume bool) error {
	l.stage, l.parent, l.ours = stageName(p.name, 0, 0), p.root, true
	if err := p.removeOlder(p.name, l.stage); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTime, ErrBusy)
	defer cancel()
	for ctx.Err() == nil {
		ours, err := l.tryStage(ctx)
		if ours && !resume && !l.fresh {
			err = l.empty()
		}
		if ours && err == nil {
			return nil
		}
		if err != nil {
			return errors.Join(err, l.close())
		}
		if err := l.close(); err != nil { // another copy has put it in its place
			return err
		}
	}
	return context.Cause(ctx)
}

// tryStage opens and locks the directory's part, and reports whether it still
// is the one of that name.
func (l *level) tryStage(ctx context.Context) (ours bool, err error) {
	if fi, err := l.parent.Lstat(l.stage); err == nil && !fi.IsDir() {
		if err := l.parent.Remove(l.stage); err != nil {
			return false, err
		}
	}
	if err := l.make(l.parent, l.stage); err != nil {
		return false, err
	}
	if l.lock, err = l.root.Open("."); err != nil {
		return false, err
	}
	return lock(ctx, l.lock, l.parent, l.stage)
}

// empty removes what is in the directory.
func (l *level) empty() error {
	names, err := list(l.root)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := l.root.RemoveAll(n); err != nil {
			return err
		}
	}
	l.fresh = true
	return nil
}

// close lets go of the directory. It may be called twice.
func (l *level) close() error {
	var err error
	if l.lock != nil {
		err = l.lock.Close()
		l.lock = nil
	}
	if l.root != nil {
		err = errors.Join(err, l.root.Close())
	}
	return err
}

// keep closes a directory that is not whole, for a later copy to go on with.
// An empty one is worth nothing.
func (l *level) keep() error {
	if l.stage != "" {
		_ = l.parent.Remove(l.stage) // only goes if it is empty
	}
	return l.close()
}

// discard leaves nothing of a directory that is not whole, unless it was there
// before.
func (l *level) discard() error {
	if l.stage == "" {
		return l.close()
	}
	return errors.Join(l.parent.RemoveAll(l.stage), l.close())
}

// leave ends the directory that was begun last.
func (r *Receiver) leave() error {
	if len(r.levels) == 1 {
		return invalid("a directory that ends and was not begun")
	}
	l := r.levels[len(r.levels)-1]
	if r.o.Sync && (l.stage != "" || l.dirty) {
		// All at once: file by file would take many times as long.
		if err := l.sync(syncFS); err != nil {
			return err
		}
	}
	if l.ours {
		if err := l.commit(); err != nil {
			return err
		}
	}
	r.levels = r.levels[:len(r.levels)-1]
	return fail("write", l.path, l.close())
}

// commit puts a directory, which is whole, in its place.
func (l *level) commit() error {
	t := atNano(l.mtime)
	if err := l.root.Chtimes(".", t, t); err != nil {
		return fail("set the time of", l.path, err)
	}
	// The last thing: its mode may well forbid all others.
	if err := l.chmod(l.mode); err != nil {
		return err
	}
	if l.stage == "" {
		return nil
	}
	return fail("write", l.path, l.parent.Rename(l.stage, l.name))
}

// sync has what is in the directory, or its entries, put on the disk.
func (l *level) sync(how func(*os.File) error) error {
	f, err := l.root.Open(".")
	if err == nil {
		err = errors.Join(how(f), f.Close())
	}
	return fail("sync", l.path, err)
}

func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// chmod goes through the open directory: by its name it might be another one.
func (l *level) chmod(m fs.FileMode) error {
	f, err := l.root.Open(".")
	if err == nil {
		err = errors.Join(f.Chmod(m), f.Close())
	}
	return fail("set the mode of", l.path, err)
}

// link makes a symbolic link. Where it leads to is no business of a copy, for
// it is followed by none.
func (r *Receiver) link(m *wire.CopyLink) error {
	if len(r.levels) == 1 {
		return invalid("a link where a file or a directory was asked for")
	}
	target := string(m.GetTarget())
	if target == "" || len(target) > maxLink {
		return invalid("a link to %d bytes", len(target))
	}
	p, err := r.place(m.GetName())
	if err != nil {
		return err
	}
	if err := p.free(); err != nil {
		return err
	}
	stage := stageName(p.name, int64(len(target)), 0)
	err = p.root.Symlink(target, stage)
	if errors.Is(err, fs.ErrExist) {
		if err = p.root.Remove(stage); err == nil {
			err = p.root.Symlink(target, stage)
		}
	}
	if err != nil {
		return fail("make link", p.path, err)
	}
	if err := p.root.Rename(stage, p.name); err != nil {
		return fail("make link", p.path, errors.Join(err, ignoreNone(p.root.Remove(stage))))
	}
	return nil
}

func ignoreNone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
