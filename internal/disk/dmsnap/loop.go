package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

const loopControl = "/dev/loop-control"

// loop is a loop device that is held open, so that it does not clear itself.
type loop struct {
	f    *os.File
	path string // "/dev/loop3"
	dev  uint64
}

func (lp *loop) close() {
	lp.f.Close() // nothing was written through it
}

// openLoop opens the loop named name, such as "loop3".
func openLoop(name string, flags int) (*loop, error) {
	path := "/dev/" + name
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	st, err := fstat(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &loop{f: f, path: path, dev: st.Rdev}, nil
}

// holds reports what a loop stands on, if that is all of file.
func (lp *loop) holds(file *os.File) (*unix.LoopInfo64, bool) {
	info, err := unix.IoctlLoopGetStatus64(int(lp.f.Fd()))
	if err != nil { // it was cleared
		return nil, false
	}
	st, err := fstat(file)
	if err != nil || info.Device != st.Dev || info.Inode != st.Ino || info.Offset != 0 || info.Sizelimit != 0 {
		return info, false
	}
	// A file may have grown since.
	size, err := lp.f.Seek(0, io.SeekEnd)
	return info, err == nil && size == st.Size
}

// bindLoop makes a loop of file. It clears itself when its last user goes. In
// flags, direct I/O is a wish that the kernel grants where it can.
func (ls *Layers) bindLoop(ctx context.Context, file *os.File, flags uint32) (*loop, error) {
	mode := os.O_RDWR
	if flags&unix.LO_FLAGS_READ_ONLY != 0 {
		mode = os.O_RDONLY
	}
	config := unix.LoopConfig{
		Fd: uint32(file.Fd()),
		// A guest's disk has sectors of 512 bytes, whatever is below.
		Size: sectorSize,
		Info: unix.LoopInfo64{Flags: flags | unix.LO_FLAGS_AUTOCLEAR},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name())
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		lp, err := ls.tryBind(&config, mode)
		if !errors.Is(err, unix.EBUSY) {
			return lp, err
		}
		// Somebody else took it: the next one.
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// tryBind is one attempt. The error is [unix.EBUSY] if somebody else was
// quicker.
func (ls *Layers) tryBind(config *unix.LoopConfig, mode int) (*loop, error) {
	n, err := ls.freeLoop()
	if err != nil {
		return nil, err
	}
	lp, err := openLoop(fmt.Sprint("loop", n), mode)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errkind.WithHint(errkind.Wrap(errkind.Host, err), fmt.Sprintf("mknod -m 660 /dev/loop%d b 7 %d", n, n))
		}
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(lp.f.Fd()), config); err != nil {
		lp.close()
		return nil, fmt.Errorf("set up %s: %w", lp.path, err)
	}
	return lp, nil
}

// freeLoop asks the kernel for a loop that nobody uses; it makes one if there
// is none.
func freeLoop() (int, error) {
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return 0, errkind.WithHint(errkind.New(errkind.Host, "the host has no loop devices: %w", err), "modprobe loop")
	}
	defer f.Close()
	n, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return 0, noLoop(err)
	}
	return n, nil
}

func noLoop(err error) error {
	return errkind.WithHint(errkind.New(errkind.Host, "the host has no free loop device: %w", err), "losetup --list")
}

// baseLoop returns a read-only loop of a base: one that is there, or a new one.
func (ls *Layers) baseLoop(ctx context.Context, base *os.File) (*loop, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	const flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	path, err := filepath.EvalSymlinks(base.Name())
	if err != nil {
		return nil, err
	}
	for _, b := range boundLoops(filepath.Base(path)) {
		// It may clear itself, or be somebody else's, until it is open.
		lp, err := openLoop(b.name, os.O_RDONLY)
		if err != nil {
			continue
		}
		if info, ok := lp.holds(base); ok && info.Flags&flags == flags {
			return lp, nil
		}
		lp.close()
	}
	return ls.bindLoop(ctx, base, unix.LO_FLAGS_READ_ONLY)
}

// bound is a loop in use, as sysfs shows it.
type bound struct {
	name    string // "loop3"
	backing string // path of its file, as the kernel has it; the last one of a file that was removed
}

// boundLoops returns the loops on files with this last element of their path.
// Where a file was moved to or mounted, its path is another; the last element
// stays the same.
func boundLoops(base string) (bs []bound) {
	disks, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil
	}
	for _, d := range disks {
		if !strings.HasPrefix(d.Name(), "loop") {
			continue
		}
		text, err := os.ReadFile("/sys/block/" + d.Name() + "/loop/backing_file")
		if err != nil { // nobody uses it
			continue
		}
		path := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
		if filepath.Base(path) == base {
			bs = append(bs, bound{d.Name(), path})
		}
	}
	return bs
}

// loopByNumber opens the loop "MAJOR:MINOR" if it holds file.
func loopByNumber(number string, file *os.File) (path string, ok bool) {
	link, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		return "", false
	}
	lp, err := openLoop(filepath.Base(link), os.O_RDONLY)
	if err != nil {
		return "", false
	}
	defer lp.close()
	_, ok = lp.holds(file)
	return lp.path, ok && devNumber(lp.dev) == number
}

func fstat(f *os.File) (st unix.Stat_t, err error) {
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return st, nil
}
