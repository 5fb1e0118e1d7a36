package daemon

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// host is the real host.
type host struct {
	memory int64
	cpu    string
}

// newHost reads what does not change.
func newHost() (host, error) {
	cpu, err := readCPU("/proc/cpuinfo")
	if err != nil {
		return host{}, err
	}
	memory, err := readMemory("MemTotal")
	return host{memory, cpu}, err
}

// readMemory returns a line of /proc/meminfo, as in "MemTotal: 24684092 kB", in
// bytes.
func readMemory(name string) (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, name+": %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo holds no %s", name)
}

// readCPU returns what of the first processor of /proc/cpuinfo does not vary:
// maker, model and flags, not its clock rate or microcode.
func readCPU(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	var said []string
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		switch key = strings.TrimSpace(key); key {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "flags":
			said = append(said, key+": "+strings.TrimSpace(value))
		}
	}
	if len(said) == 0 {
		return "", fmt.Errorf("%s tells nothing of the processor", path)
	}
	return strings.Join(said, "\n"), nil
}

func (host) CPUs() int { return runtime.NumCPU() }

func (h host) Processor() string { return h.cpu }

func (h host) MemoryBytes() int64 { return h.memory }

// AvailableBytes is the kernel's own estimate (proc(5), MemAvailable).
func (host) AvailableBytes() (int64, error) { return readMemory("MemAvailable") }

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
