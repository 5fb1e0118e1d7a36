package daemon

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// host is the real host.
type host struct{ memory int64 }

// newHost reads what does not change.
func newHost() (host, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return host{}, err
	}
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		var kb int64
		// proc(5): "MemTotal: 24684092 kB"
		if n, _ := fmt.Sscanf(sc.Text(), "MemTotal: %d kB", &kb); n == 1 {
			return host{kb << 10}, nil
		}
	}
	return host{}, fmt.Errorf("/proc/meminfo holds no MemTotal")
}

func (host) CPUs() int { return runtime.NumCPU() }

func (h host) MemoryBytes() int64 { return h.memory }

func (host) Unreserve(path string) (bool, error) {
	err := os.Remove(path)
	return err == nil, ignore(err, os.ErrNotExist)
}

func (host) Reserve(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Not by a hole: the blocks must be ours.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
		return fmt.Errorf("fallocate %s: %w", path, err)
	}
	return nil
}

func (host) DiskBytes(path string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}
