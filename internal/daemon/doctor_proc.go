package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/doctor"
	"banger/internal/vm"
)

// processesOf lists the processes that run as users of a range, zombies apart.
// proc is where proc(5) is mounted.
func processesOf(proc string, uids vm.UIDRange) (list []doctor.Process) {
	eachPID(proc, func(pid int, dir string) bool {
		text, err := os.ReadFile(dir + "/status")
		if err != nil {
			return true // it has ended
		}
		p := doctor.Process{PID: pid}
		zombie := false
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			f := strings.Fields(value)
			switch {
			case len(f) == 0:
			case key == "Name":
				p.Name = f[0]
			case key == "State":
				zombie = f[0] == "Z"
			case key == "Uid":
				uid, err := strconv.ParseUint(f[0], 10, 32)
				if err == nil {
					p.UID = uint32(uid)
				}
			}
		}
		if !zombie && p.UID >= uids.Base && p.UID-uids.Base < uids.Count {
			list = append(list, p)
		}
		return true
	})
	return list
}

// eachPID calls f for each process until that returns false.
func eachPID(proc string, f func(pid int, dir string) bool) {
	list, err := os.ReadDir(proc)
	if err != nil {
		return
	}
	for _, e := range list {
		if pid, err := strconv.Atoi(e.Name()); err == nil && !f(pid, filepath.Join(proc, e.Name())) {
			return
		}
	}
}

// portHolder tells who has a port, over UDP or TCP, on all addresses or, if
// loopback is set, on 127.0.0.1.
func portHolder(proc string, port uint16, loopback bool) doctor.Holder {
	inodes := make(map[string]bool)
	for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
		// A kernel without IPv6 has no such file.
		text, _ := os.ReadFile(proc + "/net/" + name)
		for _, inode := range bound(string(text), port, loopback) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	h := doctor.Holder{Taken: len(inodes) > 0}
	if !h.Taken {
		return h
	}
	eachPID(proc, func(pid int, dir string) bool {
		if !hasSocket(dir, inodes) {
			return true
		}
		h.PID = pid
		comm, err := os.ReadFile(dir + "/comm")
		if err == nil {
			h.Name = strings.TrimSpace(string(comm))
		}
		return false
	})
	return h
}

// hasSocket reports whether a process has one of sockets open, which only root
// sees of others' processes.
func hasSocket(dir string, sockets map[string]bool) bool {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && sockets[to] {
			return true
		}
	}
	return false
}

// Addresses as proc_pid_net(5) has them, each 32 bits in the host's order.
const (
	any4      = "00000000"
	any6      = "00000000000000000000000000000000"
	loopback4 = "0100007F"
)

// bound returns the inodes of the sockets that have a port and are not at one
// end of a connection, from lines such as
//
//	0: 0100007F:A455 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1234 …
func bound(text string, port uint16, loopback bool) (inodes []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		addr, hex, _ := strings.Cut(f[1], ":")
		p, err := strconv.ParseUint(hex, 16, 16)
		if err != nil || uint16(p) != port || !strings.HasSuffix(f[2], ":0000") {
			continue
		}
		if addr == any4 || addr == any6 || loopback && addr == loopback4 {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
