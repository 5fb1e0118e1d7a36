package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"banger/internal/sessiondir"
)

// bootID is the random id of this boot of the kernel; empty if it has none.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

// identify returns what a process is known by as long as the kernel runs; the
// zero value if it has gone.
func identify(pid int) sessiondir.Process {
	stat, err := readStat(pid)
	if err != nil {
		return sessiondir.Process{}
	}
	return sessiondir.Process{PID: pid, Start: stat.start}
}

// alive reports whether a process runs. A zombie does not; one of which nothing
// can be learned at the moment does.
func alive(p sessiondir.Process) bool {
	stat, err := readStat(p.PID)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH)
	}
	return stat.start == p.Start && stat.state != 'Z' && stat.state != 'X'
}

// procStat is what is of use in /proc/PID/stat (proc_pid_stat(5)).
type procStat struct {
	state byte
	group int
	start uint64 // in clock ticks after the boot
}

func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(data)
}

// parseStat reads the fields after the process's name, which may hold anything.
func parseStat(data []byte) (st procStat, err error) {
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return st, fmt.Errorf("%d fields", len(fields))
	}
	st.state = fields[0][0] // field 3
	if st.group, err = strconv.Atoi(string(fields[2])); err != nil {
		return st, err
	}
	st.start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return st, err
}

// groupLives reports whether a process of a group lives, apart from its leader.
func groupLives(leader int) bool {
	d, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // as many as it gives
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == leader {
			continue
		}
		if st, err := readStat(pid); err == nil && st.group == leader && st.state != 'Z' {
			return true
		}
	}
	return false
}
