package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/failpoint"
)

// Detach removes the nodes, the devices, and with them the loops. A VMM of
// this machine's user that still holds the device is killed; anybody else is
// waited for, and named if it takes too long.
func (ls *Layers) Detach(ctx context.Context, l disk.Layer) error {
	if err := ls.detach(ctx, l); err != nil {
		return fmt.Errorf("detach root disk: %w", err)
	}
	return nil
}

func (ls *Layers) detach(ctx context.Context, l disk.Layer) error {
	if err := ls.checkName(l); err != nil {
		return err
	}
	users := owners(l.Dir, filepath.Join(l.Dir, nodeName))
	err := errors.Join(dropNodes(l.Dir), dropMapperNode(ls.name(l)))
	if e := failpoint.Hit("dmsnap/nodes-gone"); e != nil {
		return errors.Join(err, e)
	}
	// What is below something in use is in use too: one wait is enough.
	if e := ls.removeDevices(ctx, l, users); e != nil {
		return errors.Join(err, e)
	}
	if e := failpoint.Hit("dmsnap/devices-gone"); e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, ls.clearLoops(ctx, l, users))
}

// owners returns the users that own these files, but not root.
func owners(paths ...string) (uids []uint32) {
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			uids = append(uids, st.Uid)
		}
	}
	return uids
}

// removeDevices removes the snapshot, and then what is below it.
func (ls *Layers) removeDevices(ctx context.Context, l disk.Layer, users []uint32) error {
	for _, name := range []string{ls.name(l), originName(ls.name(l))} {
		dev := func() (uint64, bool) {
			a, err := dmCall(unix.DM_DEV_STATUS, name, 0, 0, nil)
			return a.dev, err == nil
		}
		if err := ls.outlast(ctx, dev, users, func() error { return dmRemove(name) }); err != nil {
			return err
		}
	}
	return nil
}

// clearLoops waits until no loop stands on the COW. With the devices gone there
// is one only while somebody else has it open.
func (ls *Layers) clearLoops(ctx context.Context, l disk.Layer, users []uint32) error {
	var last uint64
	dev := func() (uint64, bool) { return last, last != 0 }
	return ls.outlast(ctx, dev, users, func() (err error) {
		last = 0
		eachCowLoop(l, func(lp *loop) {
			last = lp.dev
			// One in use clears itself when it no longer is.
			if e := unix.IoctlSetInt(int(lp.f.Fd()), unix.LOOP_CLR_FD, 0); e != nil && e != unix.ENXIO {
				err = fmt.Errorf("clear %s: %w", lp.path, e)
			}
		})
		if err != nil || last == 0 {
			return err
		}
		eachCowLoop(l, func(lp *loop) { err = fmt.Errorf("clear %s: %w", lp.path, unix.EBUSY) })
		return err
	})
}

// eachCowLoop calls f with every loop that stands on the layer's COW, also on
// one that was removed.
func eachCowLoop(l disk.Layer, f func(*loop)) {
	dir, err := filepath.EvalSymlinks(l.Dir)
	if err != nil {
		dir = l.Dir
	}
	path := filepath.Join(dir, cowName)
	var st unix.Stat_t
	there := unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Geteuid()
	for _, b := range boundLoops(cowName) {
		lp, err := openLoop(b.name, os.O_RDONLY)
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(lp.f.Fd()))
		if err == nil && (b.backing == path || there && info.Device == st.Dev && info.Inode == st.Ino) {
			f(lp)
		}
		lp.close()
	}
}

// Delete detaches the layer and removes COW and record, or whatever was planted
// in their place, and what a crash left of making them.
func (ls *Layers) Delete(ctx context.Context, l disk.Layer) error {
	if err := ls.detach(ctx, l); err != nil {
		// The COW may be in use: it stays until that ends.
		return fmt.Errorf("delete root disk: %w", err)
	}
	entries, err := os.ReadDir(l.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete root disk: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !ours(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.Dir, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("delete root disk: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ours reports whether a file in the machine's directory is the layer's, or was
// to become it.
func ours(name string) bool {
	if name == cowName || name == recordName {
		return true
	}
	return staged(name, cowName) || staged(name, recordName) || staged(name, nodeName)
}
