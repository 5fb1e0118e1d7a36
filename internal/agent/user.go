package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A user is whom a command runs as.
type user struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32 // supplementary, sorted
	home   string   // absolute
	shell  string   // absolute
}

// Limits of the guest's account files. A guest may write there what it likes,
// and its agent must not run out of memory over it.
const (
	maxAccounts = 4 << 20 // bytes of one file
	maxGroups   = 1 << 16 // NGROUPS_MAX
)

// lookUpUser finds the user called name, or with that number, in root's
// /etc/passwd; an empty name is root. Root and numbers need not be listed: an
// image may have no accounts at all. An unlisted number is its own group, for
// any other choice would give it rights that nobody asked for.
func lookUpUser(root, name string) (user, error) {
	if name == "" {
		name = "root"
	}
	u, found, err := scanPasswd(filepath.Join(root, "etc/passwd"), name)
	if err != nil {
		return user{}, err
	}
	if !found {
		uid, err := strconv.ParseUint(name, 10, 32)
		switch {
		case name == "root" || err == nil && uid == 0:
			u = user{name: "root", home: "/root"}
		case err == nil && uid < 1<<32-1: // the highest means "no user" to the kernel
			u = user{name: name, uid: uint32(uid), gid: uint32(uid)}
		default:
			return user{}, fmt.Errorf("no user %q in the guest", name)
		}
	}
	if !filepath.IsAbs(u.home) {
		u.home = "/"
	}
	if !filepath.IsAbs(u.shell) {
		u.shell = "/bin/sh"
	}
	u.groups, err = scanGroups(filepath.Join(root, "etc/group"), u)
	return u, err
}

// scanPasswd returns the first account with this name, else the first with
// this number.
func scanPasswd(path, name string) (u user, found bool, err error) {
	err = eachLine(path, func(f []string) bool {
		if len(f) != 7 {
			return true
		}
		uid, uerr := strconv.ParseUint(f[2], 10, 32)
		gid, gerr := strconv.ParseUint(f[3], 10, 32)
		if uerr != nil || gerr != nil || f[0] == "" {
			return true
		}
		named := f[0] == name
		if named || !found && f[2] == name {
			u = user{name: f[0], uid: uint32(uid), gid: uint32(gid), home: f[5], shell: f[6]}
			found = true
		}
		return !named
	})
	return u, found, err
}

// scanGroups returns the groups that list u, and its own.
func scanGroups(path string, u user) ([]uint32, error) {
	groups := []uint32{u.gid}
	err := eachLine(path, func(f []string) bool {
		if len(f) != 4 {
			return true
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err == nil && slices.Contains(strings.Split(f[3], ","), u.name) {
			groups = append(groups, uint32(gid))
		}
		return len(groups) < maxGroups
	})
	slices.Sort(groups)
	return slices.Compact(groups), err
}

// eachLine calls f with the fields of each line until it returns false. A file
// that is not there has no lines. Lines that are too long are passed over.
func eachLine(path string, f func(fields []string) bool) error {
	file, err := openRegular(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(io.LimitReader(file, maxAccounts), 64<<10)
	for {
		line, long, err := r.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if long {
			for long && err == nil {
				_, long, err = r.ReadLine()
			}
			continue
		}
		if !f(strings.Split(string(line), ":")) {
			return nil
		}
	}
}
