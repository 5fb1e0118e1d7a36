package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/apt"
	"banger/internal/hostcmd"
)

// epoch is when what a build writes was written, so that two builds are alike:
// the day of Debian 12, older than no package that matters.
var epoch = time.Date(2023, 6, 10, 0, 0, 0, 0, time.UTC)

// traces is what a build leaves in an image that belongs to the host, to one
// machine alone, or to nobody. A pattern's last element may have wildcards.
var traces = []string{
	"/etc/hostname", "/etc/resolv.conf", "/etc/ssh/ssh_host_*", "/var/lib/dbus/machine-id",
	"/etc/apt/apt.conf.d/99mmdebstrap", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap", "/etc/apt/sources.list.d/0000*",
	"/etc/apt/sources.list", "/etc/*-", "/etc/.pwd.lock",
	"/var/lib/apt/lists/*", "/var/lib/dpkg/*-old", "/var/lib/dpkg/lock*", "/var/lib/dpkg/triggers/Lock",
	"/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/apt/extended_states.*",
	"/var/cache/apt/*", "/var/cache/debconf/*-old", "/var/cache/ldconfig/*",
	"/var/log/*.log", "/var/log/apt/*", "/tmp/*", "/var/tmp/*", "/run/*",
}

// tree is the root file system of an image while it is a directory of the
// host. Nothing that is in it, such as a link to an absolute path, leads out.
type tree struct {
	*os.Root
}

// rel is an absolute path of the image as one below the tree.
func rel(p string) string { return strings.TrimPrefix(p, "/") }

// at returns where path p of the image stands, with the links of the image's
// own directories followed as the image would: /var/run/x is run/x.
func (t tree) at(p string) (string, error) {
	const maxLinks = 40 // as the kernel has it
	elems, done := strings.Split(rel(path.Clean(p)), "/"), "."
	for links := 0; len(elems) > 1; {
		next := path.Join(done, elems[0])
		elems = elems[1:]
		target, err := t.Readlink(next)
		if err != nil {
			done = next // no link, or nothing
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", p, unix.ELOOP)
		}
		if !path.IsAbs(target) {
			target = path.Join("/", done, target)
		}
		target = rel(path.Clean(target))
		done = "."
		if target != "" {
			elems = append(strings.Split(target, "/"), elems...)
		}
	}
	return path.Join(done, elems[0]), nil
}

// place is at, and makes the directory for what will stand there.
func (t tree) place(p string) (string, error) {
	name, err := t.at(p)
	if err != nil {
		return "", err
	}
	return name, t.mkdirAll(path.Dir(name))
}

// mkdirAll makes directories with mode 0755, whatever the umask.
func (t tree) mkdirAll(name string) error {
	if name == "." {
		return nil
	}
	if fi, err := t.Lstat(name); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("/%s: %w", name, unix.ENOTDIR)
		}
		return nil
	}
	if err := t.mkdirAll(path.Dir(name)); err != nil {
		return err
	}
	if err := t.Mkdir(name, 0o755); err != nil {
		return err
	}
	return t.Chmod(name, 0o755)
}

// dir makes a directory, or gives one that is there a mode.
func (t tree) dir(d Dir) error {
	name, err := t.place(d.Path)
	if err != nil {
		return err
	}
	if err := t.mkdirAll(name); err != nil {
		return err
	}
	return t.Chmod(name, perm(d.Mode, 0o755))
}

// perm turns the bits of chmod(2) into Go's.
func perm(m, otherwise mode) fs.FileMode {
	if m == 0 {
		m = otherwise
	}
	p := fs.FileMode(m & 0o777)
	for _, b := range []struct {
		bit mode
		is  fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if m&b.bit != 0 {
			p |= b.is
		}
	}
	return p
}

// file writes a file in place of what is there.
func (t tree) file(f File) error {
	name, err := t.place(f.Path)
	if err != nil {
		return err
	}
	if err := t.RemoveAll(name); err != nil {
		return err
	}
	if err := t.WriteFile(name, []byte(strings.TrimPrefix(f.Text, "\n")), 0o600); err != nil {
		return err
	}
	return t.Chmod(name, perm(f.Mode, 0o644))
}

// link makes a symbolic link in place of what is there.
func (t tree) link(l Link) error {
	name, err := t.place(l.Path)
	if err != nil {
		return err
	}
	if err := t.RemoveAll(name); err != nil {
		return err
	}
	return t.Symlink(l.Target, name)
}

// remove removes what matches a pattern whose last element may have wildcards.
func (t tree) remove(pattern string) error {
	dir, err := t.at(path.Join(path.Dir(pattern), "x"))
	if err != nil {
		return err
	}
	dir = path.Dir(dir)
	entries, err := fs.ReadDir(t.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, err := path.Match(path.Base(pattern), e.Name()); err != nil {
			return err
		} else if ok {
			if err := t.RemoveAll(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply does what the recipe says beyond its packages.
func (t tree) apply(ctx context.Context, r Recipe, sources []apt.Source) error {
	for _, p := range append(traces, r.Remove...) {
		if err := t.remove(p); err != nil {
			return fmt.Errorf("remove %s: %w", p, err)
		}
	}
	if r.Busybox != "" {
		if err := t.linkApplets(ctx, r.Busybox); err != nil {
			return fmt.Errorf("link BusyBox's applets: %w", err)
		}
	}
	for _, d := range r.Dirs {
		if err := t.dir(d); err != nil {
			return fmt.Errorf("make directory %s: %w", d.Path, err)
		}
	}
	for _, u := range r.Mask {
		r.Links = append(r.Links, Link{Path: "/etc/systemd/system/" + u, Target: "/dev/null"})
	}
	for _, l := range r.Links {
		if err := t.link(l); err != nil {
			return fmt.Errorf("link %s: %w", l.Path, err)
		}
	}
	for _, f := range append(r.Files, t.ownFiles(sources)...) {
		if err := t.file(f); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	if r.Init != "" {
		name, err := t.at(r.Init)
		if err != nil {
			return err
		}
		if _, err := t.Lstat(name); err != nil {
			return fmt.Errorf("its init: %w", err)
		}
	}
	return nil
}

// ownFiles are the files that any system of that kind should have.
func (t tree) ownFiles(sources []apt.Source) []File {
	var files []File
	has := func(p string) bool {
		name, err := t.at(p)
		if err == nil {
			_, err = t.Lstat(name)
		}
		return err == nil
	}
	if has("/etc/apt") {
		files = append(files, File{Path: "/etc/apt/sources.list", Text: guestSources(sources)})
	}
	if has("/lib/systemd/systemd") {
		// Empty, not missing: it is to be filled at boot, and that is no
		// first boot with all its presets (machine-id(5)).
		files = append(files, File{Path: "/etc/machine-id", Mode: 0o444})
		// /etc and /var fit to /usr: nothing to be brought up to date at
		// boot (systemd-update-done.service(8)).
		files = append(files, File{Path: "/etc/.updated"}, File{Path: "/var/.updated"})
	}
	return files
}

// guestSources is where a machine gets its packages: from where the image has
// them. What came from the host's own disk a machine cannot reach.
func guestSources(sources []apt.Source) string {
	var out []apt.Source
	for _, s := range sources {
		if strings.HasPrefix(s.URI, "file:") {
			continue
		}
		if !apt.IsDebianKeyring(s.SignedBy) {
			s.SignedBy = ""
		}
		out = append(out, s)
	}
	return apt.Lines(out)
}

// linkApplets gives every applet of a BusyBox its link, where there is no
// other file. The program comes from the archive, as do the scripts of other
// packages, and runs inside the tree.
func (t tree) linkApplets(ctx context.Context, busybox string) error {
	out, err := hostcmd.Cmd{Argv: []string{"chroot", t.Name(), busybox, "--list-full"}, Tied: true}.Run(ctx)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(out) {
		p := path.Join("/", string(bytes.TrimSpace(line)))
		if p == busybox || p == "/" {
			continue
		}
		name, err := t.place(p)
		if err != nil {
			return err
		}
		if err := t.Symlink(busybox, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// settle makes everything that changed since a build began as old as epoch,
// and what says that /etc and /var fit to /usr as old as that.
func (t tree) settle(ctx context.Context, began time.Time) error {
	err := filepath.WalkDir(t.Name(), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		when := fi.ModTime()
		if !when.Before(began) {
			when = epoch
		}
		return setTime(name, when)
	})
	if err != nil {
		return err
	}
	usr, err := t.Lstat("usr")
	if err != nil {
		return nil // no usr, nothing to fit to
	}
	for _, name := range []string{"etc/.updated", "var/.updated"} {
		if err := t.Chtimes(name, usr.ModTime(), usr.ModTime()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// setTime sets when a file, a link included, was read and changed last.
func setTime(name string, when time.Time) error {
	ts := unix.NsecToTimespec(when.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}
