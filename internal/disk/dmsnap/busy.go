package dmsnap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// outlast calls remove until it no longer says that the device is busy. Who
// holds it open is killed if it is one of users, and waited for otherwise.
// udev and its like are gone in a moment; after the limit, the error says who
// is not. dev returns the device, if it is there.
func (ls *Layers) outlast(ctx context.Context, dev func() (uint64, bool), users []uint32, remove func() error) error {
	ctx, cancel := context.WithTimeout(ctx, ls.busyLimit)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := remove()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		d, ok := dev()
		if ok && wait > 2*time.Millisecond {
			if err := killOpeners(ctx, d, users); err != nil {
				return err
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if who := usersOf(d); who != "" {
				err = fmt.Errorf("%w: %s", err, who)
			}
			return errkind.Wrap(errkind.Conflict, err)
		}
	}
}

// opener is a process that has a device open.
type opener struct {
	pid  int
	uid  uint32 // its real user
	name string
}

// openers returns the processes that have a block device open.
func openers(dev uint64) (os []opener) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && hasOpen(pid, dev) {
			if o, ok := lookAt(pid); ok {
				os = append(os, o)
			}
		}
	}
	return os
}

func hasOpen(pid int, dev uint64) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(fds, func(fd string) bool {
		var st unix.Stat_t
		return unix.Stat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev
	})
}

// lookAt reads a process's name and user (proc_pid_status(5)). The owner of its
// directory is root if it may not be traced.
func lookAt(pid int) (o opener, ok bool) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return opener{}, false
	}
	defer f.Close()
	o.pid = pid
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":\t")
		switch key {
		case "Name":
			o.name = value
		case "Uid":
			real, _, _ := strings.Cut(value, "\t")
			uid, err := strconv.ParseUint(real, 10, 32)
			o.uid = uint32(uid)
			return o, err == nil
		}
	}
	return opener{}, false
}

// killOpeners kills those of users that have the device open, and waits until
// they are gone.
func killOpeners(ctx context.Context, dev uint64, users []uint32) error {
	if len(users) == 0 {
		return nil
	}
	for _, o := range openers(dev) {
		if !slices.Contains(users, o.uid) {
			continue
		}
		if err := kill(ctx, o, dev); err != nil {
			return fmt.Errorf("end process %d (%s), which holds the disk: %w", o.pid, o.name, err)
		}
	}
	return nil
}

// kill ends a process if it still is the one that was seen: its descriptor is
// opened first, and what is looked at after is true of it if it lives then.
func kill(ctx context.Context, o opener, dev uint64) error {
	fd, err := unix.PidfdOpen(o.pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, ok := lookAt(o.pid); !ok || now.uid != o.uid || !hasOpen(o.pid, dev) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	for ctx.Err() == nil {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 50)
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	return context.Cause(ctx)
}

// usersOf says who uses a block device, as far as that can be known.
func usersOf(dev uint64) string {
	var who []string
	for _, o := range openers(dev) {
		who = append(who, fmt.Sprintf("process %d (%s) has it open", o.pid, o.name))
	}
	number := devNumber(dev)
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); len(f) > 4 && f[2] == number {
				who = append(who, "it is mounted at "+f[4])
			}
		}
	}
	holders, _ := filepath.Glob("/sys/dev/block/" + number + "/holders/*")
	for _, h := range holders {
		who = append(who, filepath.Base(h)+" stands on it")
	}
	return strings.Join(who, ", ")
}
