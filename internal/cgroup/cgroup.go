// Package cgroup bounds what a machine's VMM, and all that it may start, takes of
// its host: memory and processes, by a cgroup of version 2 for each machine
// (Linux's admin-guide/cgroup-v2.rst).
//
// The groups of one daemon stand in a directory of its own at the top of the
// hierarchy, whose name is computed as taps' are; it is made with the first group
// and goes with the last:
//
//	/sys/fs/cgroup/banger-<tag>/<id>
//
// Limits are a second line of defence, never an obstacle. Where the host does not
// let us ([Check]), there are no groups, and machines run all the same.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// top is where a host has its hierarchy of version 2, if it has no other.
const top = "/sys/fs/cgroup"

// goneTime is how long what was killed in a group may take to go.
const goneTime = 10 * time.Second

// Options of [New].
type Options struct {
	Tag string // required: of the daemon, six hexadecimal digits
	Top string // optional: another directory than /sys/fs/cgroup
}

// Groups are the groups of one daemon's machines. Its methods may be called
// concurrently, for one machine one after the other.
type Groups struct {
	top, dir string
	barred   error // why this host has no groups; nil: it has

	mu   sync.Mutex // held while dir comes or goes
	last error      // of the last Make; guarded by mu
}

// New returns the groups of a daemon. It looks once whether this host lets us
// have any.
func New(o Options) *Groups {
	if o.Top == "" {
		o.Top = top
	}
	return &Groups{top: o.Top, dir: filepath.Join(o.Top, "banger-"+o.Tag), barred: check(o.Top)}
}

// Err is why machines run without limits; nil: they have them.
func (g *Groups) Err() error {
	if g.barred != nil {
		return g.barred
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Path is the directory of a machine's group, whether it is there or not, or ""
// on a host without groups.
func (g *Groups) Path(id string) string {
	if g.barred != nil {
		return ""
	}
	return g.path(id)
}

func (g *Groups) path(id string) string { return filepath.Join(g.dir, id) }

// Make makes a machine's group, for at most so many bytes of memory and so many
// processes (threads count), and returns its directory; "" on a host without
// groups. A group that is there gets these limits. On an error none is left, but
// for one that was there.
func (g *Groups) Make(id string, memory int64, processes int) (dir string, err error) {
	if g.barred != nil {
		return "", nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last = g.make(id, memory, processes); g.last != nil {
		g.removeEmpty(id)
		return "", g.last
	}
	return g.path(id), nil
}

// make makes a group. Preconditions: mu is held.
func (g *Groups) make(id string, memory int64, processes int) error {
	if err := enable(g.top); err != nil {
		return err
	}
	if err := mkdir(g.dir); err != nil {
		return err
	}
	if err := enable(g.dir); err != nil {
		return err
	}
	if err := mkdir(g.path(id)); err != nil {
		return err
	}
	for _, limit := range []struct{ file, value string }{
		{"memory.max", strconv.FormatInt(memory, 10)},
		{"memory.oom.group", "1"}, // what is left of a VMM is no use
		{"pids.max", strconv.Itoa(processes)},
	} {
		if err := write(filepath.Join(g.path(id), limit.file), limit.value); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes a machine's group, and the daemon's directory with the last one.
// What still runs in the group is killed, and waited for until ctx ends, but not
// for ever. It succeeds if there is nothing.
func (g *Groups) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, goneTime, fmt.Errorf("something in it lives on after %s", goneTime))
	defer cancel()
	err := removeDir(ctx, g.path(id))
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", g.path(id), err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removeParent()
}

// Prune removes the groups of machines that keep does not name. One in which
// something runs stays: whose records were lost, his machines shall not be. It
// is in the error.
func (g *Groups) Prune(keep map[string]bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	entries, err := os.ReadDir(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if !e.IsDir() || keep[e.Name()] {
			continue
		}
		err := rmdir(g.path(e.Name()))
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("something runs in it: %w", err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", g.path(e.Name()), err))
		}
	}
	return errors.Join(append(errs, g.removeParent())...)
}

// removeEmpty removes what there is of a group in which nothing runs.
func (g *Groups) removeEmpty(id string) {
	if rmdir(g.path(id)) == nil {
		// What is left goes with the next group.
		_ = g.removeParent()
	}
}

// removeParent removes the daemon's directory if there is no group in it.
// Preconditions: mu is held.
func (g *Groups) removeParent() error {
	err := rmdir(g.dir)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove cgroup %s: %w", g.dir, err)
	}
	return nil
}

// mkdir makes a group that may be there.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// rmdir removes a group that need not be there: not [os.Remove], which would try
// to unlink it too.
func rmdir(dir string) error {
	err := unix.Rmdir(dir)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTEMPTY): // of a directory that is no cgroup
		return unix.EBUSY
	}
	return err
}

// write writes to a file that is there: one that is not would be a limit that
// this kernel lacks.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
