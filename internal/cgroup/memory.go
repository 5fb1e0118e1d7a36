package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// OutOfMemory tells whether the kernel killed what ran in a machine's group for
// want of memory, and the limit in bytes that it had met; 0: none, it was the
// host that had no more. Without a group it reports false.
func (g *Groups) OutOfMemory(id string) (limit int64, killed bool) {
	// A group without this file had no limit.
	events, _ := os.ReadFile(filepath.Join(g.path(id), "memory.events"))
	// oom_kill counts whoever's want it was, oom only that of the group itself.
	if count(string(events), "oom_kill") == 0 {
		return 0, false
	}
	if count(string(events), "oom") > 0 {
		text, _ := os.ReadFile(filepath.Join(g.path(id), "memory.max"))
		// "max" is no number, and no limit that could be met.
		limit, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	return limit, true
}

// count finds a figure in lines such as "oom_kill 1"; 0 if it is not there.
func count(text, key string) int64 {
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == key {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}
