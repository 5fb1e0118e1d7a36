package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newTree makes a tree in a directory of the test's, beside a directory that
// must not be reached from it.
func newTree(t *testing.T) (tr *tree, root, outside string) {
	t.Helper()
	dir := t.TempDir()
	root, outside = filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{root, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	tr.uid, tr.gid = os.Getuid(), os.Getgid()
	return tr, root, outside
}

// put makes a file below root, and its directories.
func put(t *testing.T, root, name, content string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// content returns what is in a file, "-" if there is none.
func content(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTreeStaysInside plants the links that a hostile image would.
func TestTreeStaysInside(t *testing.T) {
	for name, plant := range map[string]func(root, outside string){
		"file is an absolute link": func(root, outside string) {
			put(t, root, "etc/x", "")
			os.Remove(root + "/etc/hostname")
			symlink(t, outside+"/hostname", root+"/etc/hostname")
		},
		"file is a relative link": func(root, outside string) {
			put(t, root, "etc/x", "")
			symlink(t, "../../outside/hostname", root+"/etc/hostname")
		},
		"directory is an absolute link": func(root, outside string) {
			// Inside the tree it leads nowhere, or to the same names in it.
			if err := os.MkdirAll(root+outside, 0o755); err != nil {
				t.Fatal(err)
			}
			symlink(t, outside, root+"/etc")
		},
		"directory climbs out": func(root, outside string) {
			if err := os.Mkdir(root+"/outside", 0o755); err != nil {
				t.Fatal(err)
			}
			symlink(t, "../../../../../../outside", root+"/etc")
		},
		"file is hard-linked": func(root, outside string) {
			put(t, root, "etc/x", "")
			if err := os.Link(outside+"/hostname", root+"/etc/hostname"); err != nil {
				t.Fatal(err)
			}
		},
		"temporary name is taken by a link": func(root, outside string) {
			put(t, root, "etc/x", "")
			symlink(t, outside+"/hostname", root+"/etc/.banger.tmp")
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr, root, outside := newTree(t)
			put(t, outside, "hostname", "secret")
			plant(root, outside)
			if err := tr.write("/etc/hostname", []byte("web\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := content(t, outside+"/hostname"); got != "secret" {
				t.Errorf("file outside holds %q", got)
			}
			f, err := tr.open("/etc/hostname", unix.O_RDONLY|unix.O_NOFOLLOW)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := tr.read("/etc/hostname"); string(got) != "web\n" || err != nil {
				t.Errorf("file in the tree holds %q (%v)", got, err)
			}
		})
	}
}

func TestTreeReadBounds(t *testing.T) {
	tr, root, _ := newTree(t)
	put(t, root, "small", "hello")
	put(t, root, "large", strings.Repeat("x", maxTextFile+1))
	if err := unix.Mkfifo(root+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	symlink(t, "loop", root+"/loop")
	for name, want := range map[string]string{
		"/small": "hello", "/large": "", "/fifo": "", "/loop": "", "/": "", "/small/x": "", "/none": "",
	} {
		if got, err := tr.read(name); string(got) != want || err != nil {
			t.Errorf("read %s = %d bytes, %v; want %q", name, len(got), err, want)
		}
	}
}

func TestTreeWrite(t *testing.T) {
	tr, root, _ := newTree(t)
	stat := func() unix.Stat_t {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(root+"/a/b/f", &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	write := func(data string, perm os.FileMode) {
		t.Helper()
		if err := tr.write("/a/b/f", []byte(data), perm); err != nil {
			t.Fatal(err)
		}
	}
	write("one", 0o600)
	first := stat()
	if first.Mode&0o7777 != 0o600 {
		t.Errorf("mode %o, want 600", first.Mode)
	}
	write("one", 0o600)
	if stat().Ino != first.Ino {
		t.Error("a file that held the data was replaced")
	}
	write("one", 0o444)
	if got := stat().Mode & 0o7777; got != 0o444 {
		t.Errorf("mode %o, want 444", got)
	}
	write("two", 0o444)
	if got := content(t, root+"/a/b/f"); got != "two" {
		t.Errorf("file holds %q", got)
	}
	if entries, err := os.ReadDir(root + "/a/b"); len(entries) != 1 || err != nil {
		t.Errorf("directory holds %v (%v)", entries, err)
	}
}

func TestTreeOpenDirFails(t *testing.T) {
	tr, root, outside := newTree(t)
	put(t, root, "file", "")
	symlink(t, outside, root+"/dangling")
	for _, name := range []string{"/file", "/file/x", "/dangling", "/dangling/x"} {
		if d, err := tr.openDir(name, 0o755); err == nil {
			t.Errorf("openDir(%s) opened %s", name, d.Name())
			d.Close()
		}
	}
}

func TestIsSystemd(t *testing.T) {
	tr, root, _ := newTree(t)
	put(t, root, "usr/lib/systemd/systemd", "")
	put(t, root, "usr/bin/busybox", "")
	symlink(t, "usr/lib", root+"/lib")
	symlink(t, "usr/bin", root+"/sbin")
	symlink(t, "/lib/systemd/systemd", root+"/usr/bin/init") // absolute, as Debian has it
	symlink(t, "busybox", root+"/usr/bin/init2")
	for init, want := range map[string]bool{
		"/sbin/init": true, "/sbin/init2": false, "/usr/lib/systemd/systemd": true,
	} {
		if got, err := tr.isSystemd(init); got != want || err != nil {
			t.Errorf("isSystemd(%s) = %v, %v; want %v", init, got, err, want)
		}
	}
	if _, err := tr.isSystemd("/sbin/none"); err == nil {
		t.Error("an init that is not there was found")
	}
}
