package handle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/atomicfile"
	"banger/internal/keylock"
	"banger/internal/plainfile"
	"banger/internal/vm"
)

// A Cache holds the handles of all machines, in memory and in a file each. Its
// methods may be called concurrently; those that write one machine's file wait
// for each other.
//
// Lock order: a machine's lock (writing), then mu. No file is touched under mu.
type Cache struct {
	pathOf  func(vm.ID) string
	bootID  func() (string, error)
	writing keylock.Set[vm.ID]

	mu    sync.RWMutex
	known map[vm.ID]Handle // guarded by mu
}

// NewCache returns a cache in which no machine is known. pathOf tells where a
// machine's file stands; its directory is there before a handle is stored.
func NewCache(pathOf func(vm.ID) string) *Cache {
	return &Cache{pathOf: pathOf, bootID: sync.OnceValues(readBootID), known: make(map[vm.ID]Handle)}
}

// Get returns what is cached for a machine; a zero handle if that is nothing.
// It never waits for a file.
func (c *Cache) Get(id vm.ID) Handle {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[id]
}

// Load reads a machine's file into the cache and returns what it holds. A
// file that cannot be used (corrupt, too large, of another machine or boot, not
// ours) counts as none: the handle is zero, but for OtherBoot, the cache
// forgets the machine, and why says what is wrong, for the log. Without a file
// why is empty.
func (c *Cache) Load(id vm.ID) (h Handle, why string) {
	defer c.lock(id)()
	h, err := c.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errOtherBoot):
		h.OtherBoot = true
		fallthrough
	case err != nil:
		why = fmt.Sprintf("read %s: %v", c.pathOf(id), err)
	default:
		c.set(id, h)
		return h, ""
	}
	c.forget(id)
	return h, why
}

// Update lets f change what is cached for a machine and stores that: in the
// file first, whole or not at all, then in the cache. On an error both are as
// before. Machine and boot are filled in. f is called once and must not call
// the cache.
func (c *Cache) Update(id vm.ID, f func(*Handle)) error {
	defer c.lock(id)()
	bootID, err := c.bootID()
	if err != nil {
		return err
	}
	h := c.Get(id)
	f(&h)
	h.VMID, h.BootID, h.OtherBoot = id, bootID, false
	data, err := encode(h)
	if err != nil {
		return err
	}
	// Not synced: after a crash of the host it holds no more.
	if err := atomicfile.Replace(c.pathOf(id), data, 0o600); err != nil {
		return fmt.Errorf("store handles: %w", err)
	}
	c.set(id, h)
	return nil
}

// Remove forgets a machine: its file first, and whatever else was planted in
// its place, then the cache. It succeeds if there is nothing.
func (c *Cache) Remove(id vm.ID) error {
	defer c.lock(id)()
	if err := os.RemoveAll(c.pathOf(id)); err != nil {
		return fmt.Errorf("remove handles: %w", err)
	}
	c.forget(id)
	return nil
}

// lock waits for the file of a machine and returns the function that releases
// it.
func (c *Cache) lock(id vm.ID) (unlock func()) {
	unlock, err := c.writing.Lock(context.Background(), id)
	if err != nil {
		panic("internal error: a context that never ends has ended")
	}
	return unlock
}

func (c *Cache) set(id vm.ID, h Handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[id] = h
}

func (c *Cache) forget(id vm.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, id)
}

// read returns what a machine's file holds, if it can be used.
func (c *Cache) read(id vm.ID) (Handle, error) {
	bootID, err := c.bootID()
	if err != nil {
		return Handle{}, err
	}
	data, err := readOwn(c.pathOf(id))
	if err != nil {
		return Handle{}, err
	}
	h, err := decode(data, id, bootID)
	if err != nil {
		return Handle{}, err
	}
	return h, nil
}

// readOwn reads a file of at most maxFile bytes that is ours; its directory
// need not be.
func readOwn(path string) ([]byte, error) {
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("it belongs to user %d", st.Uid)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return data, nil
}

// readBootID returns the id of this boot of the host (random(4)).
func readBootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
