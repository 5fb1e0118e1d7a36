package recipe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/apt"
	"banger/internal/image"
)

// newTree returns a tree in a directory, with files and links ("-> target").
func newTree(t *testing.T, files map[string]string) (tree, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return tree{root}, dir
}

// content lists the tree: a file's text, a link's target, a directory's "/".
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			entries, err := os.ReadDir(p)
			if len(entries) == 0 {
				out[name] = "/"
			}
			return err
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out[name] = "-> " + target
			return err
		}
		text, err := os.ReadFile(p)
		out[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestApply(t *testing.T) {
	tr, dir := newTree(t, map[string]string{
		"lib":                              "-> usr/lib",
		"sbin":                             "-> usr/sbin",
		"usr/lib/systemd/systemd":          "elf",
		"usr/sbin/init":                    "-> /lib/systemd/systemd",
		"etc/hostname":                     "the host's",
		"etc/resolv.conf":                  "the host's",
		"etc/machine-id":                   "0123",
		"etc/passwd":                       "root",
		"etc/passwd-":                      "old",
		"etc/ssh/ssh_host_rsa_key":         "secret",
		"etc/ssh/sshd_config":              "keep",
		"etc/apt/sources.list.d/0000d":     "x",
		"etc/apt/apt.conf.d/99mmdebstrap":  "x",
		"etc/apt/apt.conf.d/70debconf":     "keep",
		"var/cache/apt/pkgcache.bin":       "x",
		"var/lib/apt/lists/lock":           "x",
		"var/log/dpkg.log":                 "x",
		"var/log/journal/x":                "x",
		"var/run":                          "-> /run",
		"run/lock":                         "x",
		"etc/systemd/system/sshd.service":  "-> x",
		"usr/lib/systemd/system/x.service": "keep",
	})
	r := Recipe{
		Init: "/sbin/init", Mask: []string{"apt-daily.timer"}, Remove: []string{"/etc/systemd/system/sshd.service", "/var/log/journal", "/not/there"},
		Dirs:  []Dir{{"/a/b", 0o1777}},
		Links: []Link{{"/lib/systemd/l", "/x"}},
		Files: []File{{"/var/run/f", 0o600, "\ntext\n"}, {"/etc/ssh/sshd_config", 0, "new"}},
	}
	sources := []apt.Source{{URI: "http://mirror.example/debian", Suites: []string{"s"}, Components: []string{"main"}, SignedBy: "/root/my.gpg"}}
	if err := tr.apply(context.Background(), r, sources); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"lib": "-> usr/lib", "sbin": "-> usr/sbin", "usr/lib/systemd/systemd": "elf", "usr/sbin/init": "-> /lib/systemd/systemd",
		"usr/lib/systemd/system/x.service": "keep", "usr/lib/systemd/l": "-> /x",
		"etc/machine-id": "", "etc/passwd": "root", "etc/ssh/sshd_config": "new", "etc/.updated": "", "var/.updated": "",
		"etc/apt/sources.list": "deb http://mirror.example/debian s main\n", "etc/apt/apt.conf.d/70debconf": "keep", "etc/apt/sources.list.d": "/",
		"etc/systemd/system/apt-daily.timer": "-> /dev/null",
		"var/cache/apt":                      "/", "var/lib/apt/lists": "/", "var/log": "/", "var/run": "-> /run", "run/f": "text\n", "a/b": "/",
	}
	if d := cmp.Diff(want, content(t, dir)); d != "" {
		t.Errorf("tree (-want +got):\n%s", d)
	}
	if fi, err := os.Stat(filepath.Join(dir, "a/b")); err != nil || fi.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("a/b has mode %v, %v", fi.Mode(), err)
	}
	if err := tr.apply(context.Background(), Recipe{Init: "/sbin/none"}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its init: %v", err)
	}
}

// No link in a package leads a build out of the tree.
func TestTreeKeepsInside(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "x"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr, dir := newTree(t, map[string]string{
		"abs":  "-> " + outside,
		"up":   "-> ../../../../../../../../" + outside,
		"loop": "-> loop",
		"file": "text",
	})
	for _, d := range []string{"/abs", "/up"} {
		if err := errors.Join(
			tr.file(File{Path: d + "/x", Text: "theirs"}), tr.link(Link{d + "/l", "/etc"}), tr.dir(Dir{Path: d + "/d"}), tr.remove(d+"/x"),
		); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	if d := cmp.Diff(map[string]string{"x": "mine"}, content(t, outside)); d != "" {
		t.Errorf("outside (-want +got):\n%s", d)
	}
	if _, err := os.Lstat(filepath.Join(dir, outside, "l")); err != nil {
		t.Errorf("inside: %v", err)
	}
	for _, p := range []string{"/loop/x", "/file/x"} {
		if err := tr.file(File{Path: p}); err == nil {
			t.Errorf("%s was written", p)
		}
	}
}

func TestSettle(t *testing.T) {
	tr, dir := newTree(t, map[string]string{"usr/old": "x", "etc/.updated": "", "var/.updated": "", "new": "x", "link": "-> /nowhere"})
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(dir, "usr/old"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := tr.settle(context.Background(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Time{"usr/old": old, "new": epoch, "link": epoch, "usr": epoch, "etc/.updated": epoch} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !fi.ModTime().Equal(want) {
			t.Errorf("%s is of %v, %v, want %v", name, fi.ModTime(), err, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	text := "Package: b\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n Package: no\n\n" +
		"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: a\nVersion: 9\nStatus: install ok installed\n"
	got, err := parseStatus(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]image.Package{{Name: "a", Version: "9"}, {Name: "b", Version: "1:2-3"}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
