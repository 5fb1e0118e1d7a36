package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A dirWatcher tells when something in directories changes. It has one inotify
// instance for all, for the kernel gives a user but 128 (inotify(7)), and none
// while nobody watches.
type dirWatcher struct {
	mu   sync.Mutex
	f    *os.File               // nil: nobody watches
	dirs map[int32]*watchedDir  // by watch descriptor
	path map[string]*watchedDir // by directory
}

type watchedDir struct {
	wd       int32
	watchers map[*dirWatch]bool
}

// A dirWatch is what one reader waits with.
type dirWatch struct {
	w       *dirWatcher
	path    string
	changed chan struct{} // has room for one
	status  atomic.Bool   // the file "status" was replaced
	polls   bool          // the kernel has no watch for us
}

const (
	// recheck is how often a watch wakes up by itself: a supervisor that is
	// killed changes no file.
	recheck = 2 * time.Second
	// poll is how often it does where the kernel tells of nothing.
	poll = 40 * time.Millisecond
)

// watch begins to watch a directory; stop ends it.
func (w *dirWatcher) watch(path string) *dirWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	dw := &dirWatch{w: w, path: path, changed: make(chan struct{}, 1)}
	d, err := w.add(path)
	if err != nil {
		dw.polls = true
		return dw
	}
	d.watchers[dw] = true
	return dw
}

// add returns the watched directory at path. Preconditions: w.mu is held.
func (w *dirWatcher) add(path string) (*watchedDir, error) {
	if d := w.path[path]; d != nil {
		return d, nil
	}
	if w.f == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, err
		}
		w.f = os.NewFile(uintptr(fd), "inotify")
		w.dirs, w.path = make(map[int32]*watchedDir), make(map[string]*watchedDir)
		go w.read(w.f)
	}
	wd, err := w.addWatch(path)
	if err != nil {
		w.closeIfIdle()
		return nil, err
	}
	d := &watchedDir{wd: wd, watchers: make(map[*dirWatch]bool)}
	w.dirs[wd], w.path[path] = d, d
	return d, nil
}

func (w *dirWatcher) addWatch(path string) (wd int32, err error) {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	cerr := raw.Control(func(fd uintptr) {
		n, err = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	})
	if cerr != nil {
		err = cerr
	}
	return int32(n), err
}

// closeIfIdle ends the instance if nobody watches. Preconditions: w.mu is held.
func (w *dirWatcher) closeIfIdle() {
	if len(w.path) == 0 && w.f != nil {
		w.f.Close()
		w.f = nil
	}
}

// read tells watchers of events, until f is closed. Where many come in a row the
// kernel makes one of those that are alike, if they are left for a while.
func (w *dirWatcher) read(f *os.File) {
	buf := make([]byte, 16<<10)
	var g gatherer
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		w.tell(buf[:n])
		g.took(context.Background(), 0)
	}
}

// tell wakes those whom events concern. Events that the kernel dropped concern
// all.
func (w *dirWatcher) tell(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if size > len(events) {
			return
		}
		name := bytes.TrimRight(events[unix.SizeofInotifyEvent:size], "\x00")
		events = events[size:]
		status := string(name) == "status" || mask&(unix.IN_DELETE_SELF|unix.IN_Q_OVERFLOW) != 0
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, d := range w.dirs {
				d.wake(status)
			}
		} else if d := w.dirs[wd]; d != nil {
			d.wake(status)
		}
	}
}

func (d *watchedDir) wake(status bool) {
	for dw := range d.watchers {
		if status {
			dw.status.Store(true)
		}
		select {
		case dw.changed <- struct{}{}:
		default:
		}
	}
}

// statusChanged reports whether the status was replaced since it was last
// asked.
func (dw *dirWatch) statusChanged() bool { return dw.status.Swap(false) }

// wait waits until something may have changed. woke says that it was woken by
// time alone.
func (dw *dirWatch) wait(ctx context.Context) (woke bool, err error) {
	after := recheck
	if dw.polls {
		after = poll
	}
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-dw.changed:
		return false, nil
	case <-t.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// stop ends the watch.
func (dw *dirWatch) stop() {
	dw.w.mu.Lock()
	defer dw.w.mu.Unlock()
	d := dw.w.path[dw.path]
	if d == nil || !d.watchers[dw] {
		return
	}
	if delete(d.watchers, dw); len(d.watchers) > 0 {
		return
	}
	delete(dw.w.path, dw.path)
	delete(dw.w.dirs, d.wd)
	if raw, err := dw.w.f.SyscallConn(); err == nil {
		// It fails if the directory has gone.
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(d.wd)) })
	}
	dw.w.closeIfIdle()
}
