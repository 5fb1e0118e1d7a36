package qemu

import (
	"banger/internal/sparse"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMemories is how many frozen memories are kept ready.
	maxMemories = 4
	// memoryUnused is how long one is kept that no machine is made of.
	memoryUnused = 10 * time.Minute
)

// memories keeps the memories of frozen guests as QEMU can map them. QEMU opens
// for writing whatever file it maps (until 8.2, also for a private mapping), and
// a VMM that was broken into must not change what other machines are made of.
// So it gets a copy in memory that is sealed: nobody can write to it any more
// (memfd_create(2), fcntl(2), F_SEAL_WRITE), only map it privately. One copy
// serves all machines. The zero value is ready; methods may be called
// concurrently.
type memories struct {
	mu   sync.Mutex
	kept map[string]*memory // guarded by mu; by path
}

// memory is one copy.
type memory struct {
	once   sync.Once
	f      *os.File // sealed; nil after an error
	err    error
	source os.FileInfo
	used   time.Time   // guarded by memories.mu
	timer  *time.Timer // drops it; guarded by memories.mu
}

// open returns a new descriptor of the copy of the memory in the file at path,
// of size bytes, which the caller closes.
func (ms *memories) open(path string, size int64) (*os.File, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("memory to restore: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() != size {
		return nil, fmt.Errorf("memory to restore: %s has %d bytes, not %d", path, fi.Size(), size)
	}
	m := ms.get(path, fi)
	m.once.Do(func() { m.f, m.err = sealedCopy(path, size) })
	if m.err != nil {
		ms.drop(path, m)
		return nil, fmt.Errorf("memory to restore: %w", m.err)
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.f == nil {
		return nil, errors.New("memory to restore: it was given up meanwhile")
	}
	fd, err := unix.FcntlInt(m.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("memory to restore: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// get returns the copy of a file, made or not.
func (ms *memories) get(path string, fi os.FileInfo) *memory {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.kept == nil {
		ms.kept = make(map[string]*memory)
	}
	m := ms.kept[path]
	if m == nil || !os.SameFile(m.source, fi) || !m.source.ModTime().Equal(fi.ModTime()) {
		ms.giveUp(path, m)
		m = &memory{source: fi}
		m.timer = time.AfterFunc(memoryUnused, func() { ms.drop(path, m) })
		ms.kept[path] = m
	}
	m.used = time.Now()
	m.timer.Reset(memoryUnused)
	ms.limit()
	return m
}

// limit gives up what was not used for longest. Preconditions: mu is held.
func (ms *memories) limit() {
	for len(ms.kept) > maxMemories {
		var oldest string
		for path, m := range ms.kept {
			if oldest == "" || m.used.Before(ms.kept[oldest].used) {
				oldest = path
			}
		}
		ms.giveUp(oldest, ms.kept[oldest])
	}
}

// drop gives up m. Machines that were made of it keep theirs.
func (ms *memories) drop(path string, m *memory) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.kept[path] == m {
		ms.giveUp(path, m)
	}
}

// giveUp forgets m, if that is not nil. Preconditions: mu is held.
func (ms *memories) giveUp(path string, m *memory) {
	if m == nil {
		return
	}
	delete(ms.kept, path)
	m.timer.Stop()
	go func() {
		m.once.Do(func() {}) // it is not being made any more
		ms.mu.Lock()
		defer ms.mu.Unlock()
		if m.f != nil {
			m.f.Close()
			m.f = nil
		}
	}()
}

// sealedCopy copies the file at path into memory, holes as holes, and seals it.
func sealedCopy(path string, size int64) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	fd, err := unix.MemfdCreate("banger-ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	to := os.NewFile(uintptr(fd), "banger-ram")
	err = sparse.Copy(context.Background(), to, from, size)
	if err == nil {
		const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
		_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return to, nil
}
