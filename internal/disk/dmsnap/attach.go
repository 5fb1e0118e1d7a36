package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/failpoint"
	"banger/internal/plainfile"
	"banger/internal/undo"
)

// Attach checks that COW, record and base belong together, and makes the
// device. On an error it removes what it made.
func (ls *Layers) Attach(ctx context.Context, l disk.Layer) (disk.Device, error) {
	d, err := ls.attach(ctx, l)
	if err != nil {
		return disk.Device{}, fmt.Errorf("attach root disk %s: %w", ls.Path(l), err)
	}
	return d, nil
}

func (ls *Layers) attach(ctx context.Context, l disk.Layer) (d disk.Device, err error) {
	if ctx.Err() != nil {
		return disk.Device{}, context.Cause(ctx)
	}
	if err := ls.checkName(l); err != nil {
		return disk.Device{}, err
	}
	p, err := openParts(l)
	if err != nil {
		return disk.Device{}, err
	}
	defer p.close()
	if err := checkDevices(l.Dir); err != nil {
		return disk.Device{}, err
	}
	s, ok := ls.standing(l, p)
	if ok {
		return ls.device(l, s)
	}
	// What a crash left, or is over another base. Nobody's use of it is ended.
	if err := removeIdle(ls.name(l)); err != nil {
		return disk.Device{}, err
	}
	if err := refuseUsed(l); err != nil {
		return disk.Device{}, err
	}
	var u undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, u.Unwind(ctx))
		}
	}()
	if s, err = ls.stack(ctx, l, p, &u); err != nil {
		return disk.Device{}, err
	}
	u.Push("node", func(context.Context) error {
		return errors.Join(dropNodes(l.Dir), dropMapperNode(ls.name(l)))
	})
	if d, err = ls.device(l, s); err != nil {
		return disk.Device{}, err
	}
	return d, failpoint.Hit("dmsnap/node")
}

// parts are what a device is made of, checked.
type parts struct {
	record    record
	base, cow *os.File
}

func (p parts) close() {
	p.base.Close()
	p.cow.Close()
}

// openParts opens the base, and the COW that was made over it.
func openParts(l disk.Layer) (p parts, err error) {
	base, size, err := openBase(l.Base)
	if err != nil {
		return parts{}, err
	}
	defer func() {
		if err != nil {
			base.Close()
		}
	}()
	look := "ls -lA " + errkind.Quote(l.Dir)
	r, err := readRecord(l)
	if err != nil {
		return parts{}, errkind.WithHint(err, look)
	}
	if err := r.check(l, size); err != nil {
		return parts{}, errkind.WithHint(err, "banger image list")
	}
	cow, err := openCow(l, r)
	if err != nil {
		return parts{}, errkind.WithHint(err, look)
	}
	return parts{r, base, cow}, nil
}

func readRecord(l disk.Layer) (record, error) {
	if _, err := os.Lstat(filepath.Join(l.Dir, cowName)); errors.Is(err, fs.ErrNotExist) {
		return record{}, errLost
	}
	f, err := openOwn(filepath.Join(l.Dir, recordName), os.O_RDONLY)
	if err != nil {
		return record{}, fmt.Errorf("what it was made over is not known: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return record{}, err
	}
	r, err := decodeRecord(b)
	if err != nil {
		return record{}, fmt.Errorf("what it was made over is not known: %s: %w", f.Name(), err)
	}
	return r, nil
}

func openCow(l disk.Layer, r record) (*os.File, error) {
	f, err := openOwn(filepath.Join(l.Dir, cowName), os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLost
	}
	if err != nil {
		return nil, err
	}
	if err = checkCow(f, r); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkCow(f *os.File, r record) error {
	st, err := fstat(f)
	if err != nil {
		return err
	}
	if st.Size != cowSize(r.Size) {
		return fmt.Errorf("it has %d bytes, not %d", st.Size, cowSize(r.Size))
	}
	b := make([]byte, len(cowHeader()))
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	return checkHeader(b)
}

// openOwn opens a file of ours in a directory where a VMM's user may have put
// another at its name.
func openOwn(path string, flags int) (*os.File, error) {
	f, err := plainfile.Open(path, flags, 0)
	if err != nil {
		return nil, err
	}
	st, err := fstat(f)
	if err == nil && int(st.Uid) != os.Geteuid() {
		err = fmt.Errorf("open %s: it is user %d's", path, st.Uid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// stack is a snapshot and the loops that it stands on.
type stack struct {
	dev       uint64
	base, cow string // "/dev/loop3"
}

// standing returns the machine's snapshot if it is there, and just the one that
// would be made of p.
func (ls *Layers) standing(l disk.Layer, p parts) (s stack, ok bool) {
	dev, table, err := dmTable(ls.name(l), false)
	if err != nil {
		return stack{}, false
	}
	base, cow, ok := snapshotParts(table, p.record)
	if ok && p.record.Size > p.record.BaseSize {
		odev, otable, err := dmTable(originName(ls.name(l)), false)
		if err != nil || devNumber(odev) != base {
			return stack{}, false
		}
		base, ok = originBase(otable, p.record)
	}
	if !ok {
		return stack{}, false
	}
	s.dev = dev
	if s.base, ok = loopByNumber(base, p.base); ok {
		s.cow, ok = loopByNumber(cow, p.cow)
	}
	return s, ok
}

// removeIdle removes a machine's devices unless they are in use.
func removeIdle(name string) error {
	for _, n := range []string{name, originName(name)} {
		if err := dmRemove(n); err != nil {
			return err
		}
	}
	return nil
}

// refuseUsed reports a COW that somebody has on a loop: written through two,
// it would be lost.
func refuseUsed(l disk.Layer) error {
	var path string
	eachCowLoop(l, func(lp *loop) { path = lp.path })
	if path == "" {
		return nil
	}
	return errkind.WithHint(errkind.New(errkind.Conflict, "it is in use by %s", path), "losetup -d "+path)
}

// stack makes the loops and the devices, and arms the undo of the devices; the
// loops clear themselves.
func (ls *Layers) stack(ctx context.Context, l disk.Layer, p parts, u *undo.Stack) (s stack, err error) {
	base, err := ls.baseLoop(ctx, p.base)
	if err != nil {
		return stack{}, fmt.Errorf("put image on a loop: %w", err)
	}
	defer base.close()
	if err := failpoint.Hit("dmsnap/base"); err != nil {
		return stack{}, err
	}
	cow, err := ls.bindLoop(ctx, p.cow, unix.LO_FLAGS_DIRECT_IO)
	if err != nil {
		return stack{}, fmt.Errorf("put COW on a loop: %w", err)
	}
	defer cow.close()
	if err := failpoint.Hit("dmsnap/cow"); err != nil {
		return stack{}, err
	}
	name := ls.name(l)
	u.Push("devices", func(ctx context.Context) error { return ls.removeDevices(ctx, l, nil) })
	origin := base.dev
	if p.record.Size > p.record.BaseSize {
		origin, err = dmMake(originName(name), originTable(base.dev, p.record), unix.DM_READONLY_FLAG)
		if err != nil {
			return stack{}, err
		}
	}
	if err := failpoint.Hit("dmsnap/origin"); err != nil {
		return stack{}, err
	}
	dev, err := dmMake(name, snapshotTable(origin, cow.dev, p.record), 0)
	if err != nil {
		return stack{}, err
	}
	return stack{dev, base.path, cow.path}, failpoint.Hit("dmsnap/snapshot")
}

// device makes the nodes of a snapshot, unless they are there.
func (ls *Layers) device(l disk.Layer, s stack) (disk.Device, error) {
	name := ls.name(l)
	path := filepath.Join(l.Dir, nodeName)
	if err := putNode(path, s.dev, l.UID); err != nil {
		return disk.Device{}, err
	}
	if err := putMapperNode(name, s.dev); err != nil {
		return disk.Device{}, err
	}
	return disk.Device{
		Path: path, Format: "raw", BaseLoop: s.base, CowLoop: s.cow,
		DMName: name, DMDev: mapperPath(name),
	}, nil
}
