package hostcmd

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Detached is a process that outlives whoever started it.
type Detached struct {
	Argv []string // Argv[0] is an absolute path
	Dir  string   // its working directory
	Env  []string // nil: as by [Env]
	Log  string   // its output and errors are appended here; made if it is not there
	// LogFile, if not nil, is used instead of Log: for a log in a directory
	// of somebody who is not trusted, where the name may lead elsewhere by
	// now. It is open for appending, and stays the caller's to close.
	LogFile *os.File
	Output  *os.File   // if not nil, its output goes there instead, and only its errors to the log; as LogFile
	Files   []*os.File // the process has them open, from descriptor 3 on; they stay the caller's
	// Cgroup is the directory of a cgroup of version 2 in which it starts. Empty:
	// it leaves ours.
	Cgroup string
	// Idle: it gets a processor when nobody else wants it (sched(7), SCHED_IDLE),
	// as far as the host lets us say so.
	Idle bool
	// UID and GID it runs as, with no supplementary groups but Groups.
	// Nil: the caller's.
	Credential *Credential
}

// Credential is who a process runs as.
type Credential struct {
	UID, GID uint32
	Groups   []uint32
}

func (c Credential) sys() *syscall.Credential {
	return &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}

// Start starts the process in a session of its own, with /dev/null as its
// input and no descriptor of ours but Files. It starts in Cgroup, or where cgroups
// can be written leaves ours, so that it does not die with a login or a CI job. The
// caller must Wait for the process, or leave it to init by exiting.
func (d Detached) Start() (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log := d.LogFile
	if log == nil {
		log, err = os.OpenFile(d.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
	}
	out := log
	if d.Output != nil {
		out = d.Output
	}
	attr := &os.ProcAttr{
		Dir:   d.Dir,
		Env:   d.Env,
		Files: append([]*os.File{null, out, log}, d.Files...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if attr.Env == nil {
		attr.Env = Env()
	}
	if c := d.Credential; c != nil {
		attr.Sys.Credential = c.sys()
	}
	if d.Cgroup != "" {
		group, err := os.OpenFile(d.Cgroup, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	// Descriptors that we were started with and know nothing of (a CI job's
	// pipes) must not live on in a process that outlives us.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("close_range: %w", err)
	}
	p, err := os.StartProcess(d.Argv[0], d.Argv, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(d.Argv[0]), err)
	}
	if d.Cgroup == "" {
		leaveCgroups(p.Pid)
	}
	if d.Idle {
		_ = unix.SchedSetAttr(p.Pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	}
	return p, nil
}

// leaveCgroups moves a process to the root of every cgroup hierarchy that lets
// us. Where none does (no privilege, a container), the process stays where it
// is, which is all that can be had there.
func leaveCgroups(pid int) {
	for _, pattern := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/cgroup.procs"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, f := range files {
			if hierarchyRoot(filepath.Dir(f)) {
				_ = os.WriteFile(f, []byte(strconv.Itoa(pid)), 0)
			}
		}
	}
}

// hierarchyRoot reports whether dir is where a cgroup hierarchy is mounted, not
// a group inside one: only a mount stands on another device than its parent.
func hierarchyRoot(dir string) bool {
	var a, b syscall.Stat_t
	if syscall.Stat(dir, &a) != nil || syscall.Stat(filepath.Dir(dir), &b) != nil {
		return false
	}
	return a.Dev != b.Dev
}
