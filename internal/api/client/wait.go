package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// watchDir makes a directory and returns a channel that gets a value when
// something in it, or it itself, has changed since. The channel is closed when
// ctx ends or the directory goes.
func watchDir(ctx context.Context, dir string, mode os.FileMode) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if err := addWatch(fd, dir, mode); err != nil {
		f.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	changes := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(past) })
	go func() {
		defer close(changes)
		defer f.Close()
		defer stop()
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
			if gone(buf[:n]) {
				return
			}
		}
	}()
	return changes, nil
}

// addWatch watches dir, which is made if it is not there: whoever else makes it
// first is as good.
func addWatch(fd int, dir string, mode os.FileMode) error {
	const what = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err := unix.InotifyAddWatch(fd, dir, what)
	return err
}

// gone reports whether the events say that what was watched is no more.
func gone(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		if mask&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0 {
			return true
		}
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		events = events[min(size, len(events)):]
	}
	return false
}

// watchProcess returns a channel that is closed when the process has ended, or
// ctx has. It need not be our child, nor ours.
func watchProcess(ctx context.Context, pid int) (<-chan struct{}, error) {
	ended := make(chan struct{})
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		close(ended)
		return ended, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(past) })
	go func() {
		defer close(ended)
		defer f.Close()
		defer stop()
		// An error is the deadline that ctx sets.
		_ = raw.Read(readable)
	}()
	return ended, nil
}

// readable reports whether fd can be read, which a pidfd can when its process
// has ended (pidfd_open(2)).
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// holder returns the process that holds a flock(2) on the file; none if nobody
// does, or it cannot be told.
func holder(path string) (pid int, ok bool) {
	file, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, false
	}
	for _, pid := range flocks(string(locks), file.Sys().(*syscall.Stat_t).Ino) {
		if hasOpen(pid, file) {
			return pid, true
		}
	}
	return 0, false
}

// flocks returns who has a lock on a file with this inode, from lines such as
// "1: FLOCK  ADVISORY  WRITE 708 00:13:1234 0 EOF" (proc(5)). The device is
// not compared: btrfs and overlayfs show another one there than stat(2).
func flocks(lines string, inode uint64) []int {
	var pids []int
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+strconv.FormatUint(inode, 10)) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hasOpen reports whether a process has the file open.
func hasOpen(pid int, file os.FileInfo) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(fds, func(d os.DirEntry) bool {
		fi, err := os.Stat(filepath.Join(dir, d.Name()))
		return err == nil && os.SameFile(fi, file)
	})
}
