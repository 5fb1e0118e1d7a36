package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/config"
	"banger/internal/dns"
	"banger/internal/doctor"
	"banger/internal/hostcmd"
	"banger/internal/vm"
)

// lookAtHost finds out what doctor needs to know. What cannot be found out is
// an error in its place.
func lookAtHost(p config.Paths, uids vm.UIDRange) doctor.Host {
	h := doctor.Host{
		Root: isRoot(),
		KVM:  lookAtKVM(), Tun: lookAtTun(), Clock: lookAtClock(),
		Spaces: lookAtSpaces(p), Places: lookAtPlaces(p),
		NamePort:  portHolder("/proc", dns.DefaultPort, true),
		GuestPort: portHolder("/proc", 53, false),
	}
	h.Processes, h.Entries, h.EntryErr = leftNow(p, uids)
	return h
}

// leftNow lists what machines have on the host: processes of their users, and
// paths in their directories.
func leftNow(p config.Paths, uids vm.UIDRange) (processes []doctor.Process, paths []string, err error) {
	paths, err = entries(p.VMs(), p.VMRuns())
	return processesOf("/proc", uids), paths, err
}

func lookAtKVM() doctor.KVM {
	k := doctor.KVM{Err: opens("/dev/kvm")}
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			k.Module = m
		}
	}
	// An unreadable list of the processor's features offers nothing.
	text, _ := os.ReadFile("/proc/cpuinfo")
	k.CPU = kvmModule(string(text))
	return k
}

// kvmModule is the module for the virtualisation that /proc/cpuinfo names.
func kvmModule(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		switch words := strings.Fields(flags); {
		case strings.TrimSpace(name) != "flags":
		case slices.Contains(words, "vmx"):
			return "kvm_intel"
		case slices.Contains(words, "svm"):
			return "kvm_amd"
		}
	}
	return ""
}

// opens opens a device for reading and writing, which alone does nothing.
func opens(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func lookAtTun() doctor.Tun {
	const path = "/dev/net/tun"
	t := doctor.Tun{Err: opens(path)}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil {
		// Linux's admin-guide/devices.txt: 10 char, 200 = /dev/net/tun.
		t.Other = st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 200)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return t
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path { // proc_pid_mountinfo(5)
			t.Mounted = true
		}
	}
	return t
}

func lookAtClock() doctor.Clock {
	c := doctor.Clock{Now: time.Now()}
	var tx unix.Timex // without modes: nothing is set
	if _, err := unix.Adjtimex(&tx); err != nil {
		c.Err = err
	}
	c.Synced = tx.Status&unix.STA_UNSYNC == 0
	_, err := hostcmd.Look("timedatectl")
	_, booted := os.Stat("/run/systemd/system") // sd_booted(3)
	c.Service = err == nil && booted == nil
	return c
}

// lookAtSpaces asks for the room under state and cache; once, if that is the
// same file system.
func lookAtSpaces(p config.Paths) (spaces []doctor.Space) {
	var last uint64
	for _, dir := range []string{p.State, p.Cache} {
		s := doctor.Space{Dir: existing(dir), Cache: dir == p.Cache}
		var st unix.Stat_t
		if err := unix.Stat(s.Dir, &st); err == nil && st.Dev == last {
			continue
		}
		last = st.Dev
		_, s.Free, s.Err = host{}.DiskBytes(s.Dir)
		spaces = append(spaces, s)
	}
	return spaces
}

// existing is dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func lookAtPlaces(p config.Paths) (places []doctor.Place) {
	for _, d := range []struct {
		path   string
		passed bool // by users of VMMs
	}{{p.State, true}, {p.VMs(), false}, {p.Cache, true}, {p.Images(), false}, {p.Kernels(), false}, {p.Run, false}, {p.VMRuns(), false}} {
		pl := doctor.Place{Path: existing(d.path)}
		pl.Ours = pl.Path == d.path
		if fi, err := os.Lstat(pl.Path); err == nil {
			pl.Mode, pl.UID = fi.Mode(), int(fi.Sys().(*syscall.Stat_t).Uid)
		}
		if d.passed && pl.Mode.IsDir() {
			pl.Closed = checkPassable(pl.Path)
		}
		places = append(places, pl)
	}
	return places
}

// entries lists what stands in directories, by path. One that is not there
// holds nothing.
func entries(dirs ...string) (paths []string, err error) {
	for _, dir := range dirs {
		list, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range list {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}
