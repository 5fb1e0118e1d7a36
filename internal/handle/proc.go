package handle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// maxCmdline bounds what is read of a command line, in bytes. Ours have a few
// thousand; a longer one is somebody else's.
const maxCmdline = 256 << 10

// commLen is the length of the longest name that the kernel keeps for a
// process, in bytes (proc_pid_comm(5)).
const commLen = 15

// kernelThread is PF_KTHREAD of the kernel's sched.h, in the flags of stat.
const kernelThread = 0x00200000

// info is what the process table says of one process.
type info struct {
	start  uint64 // clock ticks since the host booted
	uid    uint32 // real and effective
	comm   string // base name of what was executed, cut to commLen
	exe    string // base name of the executable, links resolved; empty if ending
	args   [][]byte
	usage  vmm.Usage
	ending bool // its memory is gone, its files perhaps not yet: it is on its way out
}

// errNotOurs says that a process is none that a VMM could be: gone, a thread
// of the kernel, or with a user of two minds.
var errNotOurs = errors.New("not a VMM")

// look reads the process table. The error is errNotOurs or tells that the
// table could not be read; of a process of another user no more is read than
// what tells so.
func look(pid int, uid uint32) (info, error) {
	i, err := readStat(pid)
	if err != nil {
		return i, notThere(err)
	}
	if i.uid, err = readUID(pid); err != nil {
		return i, notThere(err)
	}
	if i.uid != uid {
		return i, errNotOurs
	}
	// The arguments first: while there is an executable there was memory to
	// read them from.
	if i.args, err = readArgs(pid); err != nil {
		return i, notThere(err)
	}
	exe, err := os.Readlink(procPath(pid, "exe"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.ending = true // or gone: the pidfd tells
		return i, nil
	case err != nil:
		return i, notThere(err)
	}
	// An upgrade of the VMM's package removes the file that runs.
	i.exe = path.Base(strings.TrimSuffix(exe, " (deleted)"))
	return i, nil
}

// has reports whether a process has signature s.
func (i info) has(s vmm.Signature) bool {
	if i.uid != s.UID {
		return false
	}
	if i.ending {
		// Its command line is gone with its memory, but disk and tap may be
		// busy for a while yet. Each machine's VMM has a user of its own, so
		// the user tells which it is; not so for root.
		return s.UID != 0 && (i.comm == s.Exe[:min(len(s.Exe), commLen)] || s.Names(i.comm))
	}
	return i.executes(s) && hasArgs(i.args, s)
}

// executes reports whether a process executes the program of signature s, by the
// name of its file, or by the one it was executed as: a link may have led to a
// file with another name, and lead elsewhere by now.
func (i info) executes(s vmm.Signature) bool {
	return s.Names(i.exe) || s.Names(path.Base(string(i.args[0])))
}

// is reports whether a process is the one that h tells of and may have
// signature s, whatever its command line has become: a process can overwrite
// its own.
func (i info) is(h Handle, s vmm.Signature) bool {
	return h.StartTime != 0 && i.start == h.StartTime && i.uid == s.UID
}

func hasArgs(args [][]byte, s vmm.Signature) bool {
	for n := 0; n+1 < len(args); n++ {
		if string(args[n]) == s.Arg && string(args[n+1]) == s.Next {
			return true
		}
	}
	return false
}

// readStat reads name, start time and flags (proc_pid_stat(5)).
func readStat(pid int) (info, error) {
	data, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return info{}, err
	}
	// The name may hold anything, parentheses and spaces too.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return info{}, fmt.Errorf("%s makes no sense", procPath(pid, "stat"))
	}
	f := strings.Fields(string(data[end+1:])) // from field 3 on
	if len(f) < 22 {
		return info{}, fmt.Errorf("%s makes no sense", procPath(pid, "stat"))
	}
	flags, err := strconv.ParseUint(f[9-3], 10, 64)
	if err != nil {
		return info{}, fmt.Errorf("%s: %w", procPath(pid, "stat"), err)
	}
	if flags&kernelThread != 0 {
		return info{}, errNotOurs
	}
	start, err := strconv.ParseUint(f[22-3], 10, 64)
	if err != nil {
		return info{}, fmt.Errorf("%s: %w", procPath(pid, "stat"), err)
	}
	i := info{start: start, comm: string(data[open+1 : end])}
	i.usage, err = usageOf(f)
	if err != nil {
		return info{}, fmt.Errorf("%s: %w", procPath(pid, "stat"), err)
	}
	return i, nil
}

// clockTick is the length of a clock tick as /proc has it: USER_HZ is 100 on
// every architecture that Linux has today (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// usageOf reads utime, stime and rss from the fields of stat from the third on.
func usageOf(f []string) (u vmm.Usage, err error) {
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		if n[i], err = strconv.ParseInt(f[field-3], 10, 64); err != nil {
			return u, err
		}
	}
	return vmm.Usage{CPU: time.Duration(n[0]+n[1]) * clockTick, ResidentBytes: n[2] * int64(os.Getpagesize())}, nil
}

// readUID reads the user that a process runs as, really and effectively.
func readUID(pid int) (uint32, error) {
	data, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) < 2 || f[0] != f[1] {
			return 0, errNotOurs
		}
		uid, err := strconv.ParseUint(f[0], 10, 32)
		return uint32(uid), err
	}
	return 0, fmt.Errorf("%s names no user", procPath(pid, "status"))
}

func readArgs(pid int) ([][]byte, error) {
	f, err := os.Open(procPath(pid, "cmdline"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCmdline))
	if err != nil {
		return nil, err
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte{0}), []byte{0}), nil
}

// notThere makes errNotOurs of what reading the files of a process that has
// gone gives.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errNotOurs
	}
	return err
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
