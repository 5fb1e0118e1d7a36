package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// controllers are those that the limits take.
var controllers = []string{"memory", "pids"}

// Check returns nil if this host lets root limit machines, else an error of kind
// [errkind.Host] that says why not. It changes nothing and needs no privilege.
func Check() error { return check(top) }

func check(top string) error {
	if err := checkMount(top); err != nil {
		return err
	}
	return checkControllers(top)
}

// checkMount reports a hierarchy that is not of version 2, or cannot be written.
func checkMount(top string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(top, &st); err != nil {
		return errkind.New(errkind.Host, "%s: %v", top, err)
	}
	switch {
	case st.Type != unix.CGROUP2_SUPER_MAGIC:
		return errkind.New(errkind.Host, "this host's cgroups are not of version 2 alone (%s is no cgroup2)", top)
	case st.Flags&unix.ST_RDONLY != 0:
		return errkind.New(errkind.Host, "%s is mounted read-only, as in a container", top)
	}
	return nil
}

// checkControllers reports what is not offered to the groups below top, and
// cannot be had. But for the host's own root, a group with processes has no
// controllers for those below it (cgroup-v2.rst, "No Internal Process
// Constraint").
func checkControllers(top string) error {
	offered, err := words(top, "cgroup.controllers")
	if err != nil {
		return errkind.Wrap(errkind.Host, err)
	}
	for _, c := range controllers {
		if !slices.Contains(offered, c) {
			return errkind.New(errkind.Host, "%s offers no controller %q", top, c)
		}
	}
	lacking, err := lacking(top)
	if err != nil {
		return errkind.Wrap(errkind.Host, err)
	}
	if len(lacking) == 0 {
		return nil
	}
	// The root of the whole host is the one group that has no type.
	if _, err := os.Stat(filepath.Join(top, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	procs, err := words(top, "cgroup.procs")
	if err == nil && len(procs) > 0 {
		return errkind.New(errkind.Host, "%s has processes of its own, as in a container, so the kernel gives groups below it no controller %q", top, lacking[0])
	}
	return nil
}

// lacking lists the controllers that the groups below dir do not have yet.
func lacking(dir string) ([]string, error) {
	enabled, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return slices.Contains(enabled, c) }), nil
}

// enable lets the groups below dir have the controllers. It writes nothing where
// they have them, and takes none away from anybody.
func enable(dir string) error {
	missing, err := lacking(dir)
	if err != nil || len(missing) == 0 {
		return err
	}
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(missing, " +"))
}

// words reads a file of a group.
func words(dir, file string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(text)), err
}
