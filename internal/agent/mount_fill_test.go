package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testMark can be set without privilege, as filledAttr cannot.
const testMark = "user.banger.filled"

// fillDirs makes the directory of an image and a fresh work disk.
func fillDirs(t *testing.T) (src, dst string) {
	t.Helper()
	dir := t.TempDir()
	src, dst = dir+"/image", dir+"/disk"
	for _, d := range []string{src, dst, dst + "/lost+found"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return src, dst
}

func doFill(t *testing.T, dst, src string) error {
	t.Helper()
	var dirs [2]*os.File
	for i, name := range []string{dst, src} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		dirs[i] = f
	}
	return fill(dirs[0], dirs[1], testMark)
}

func TestFill(t *testing.T) {
	src, dst := fillDirs(t)
	past := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	put(t, src, ".bashrc", "alias ll='ls -l'\n")
	put(t, src, "a/b/c/file", "deep")
	put(t, src, "tool", "#!/bin/sh\n")
	sparse := src + "/sparse"
	put(t, src, "sparse", "head")
	for _, err := range []error{
		os.Chmod(src+"/tool", 0o755|os.ModeSetuid),
		os.Chmod(src+"/a", 0o700|os.ModeSticky),
		os.Truncate(sparse, 1<<40),
		os.Link(src+"/a/b/c/file", src+"/again"),
		os.Symlink("/etc/passwd", src+"/link"),
		unix.Mkfifo(src+"/fifo", 0o600),
		os.Chmod(src+"/fifo", 0o620),
		unix.Setxattr(src+"/tool", "user.note", []byte("x\x00y"), 0),
		os.Chtimes(src+"/.bashrc", past, past),
		os.Chmod(src, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := doFill(t, dst, src); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{".bashrc": "alias ll='ls -l'\n", "a/b/c/file": "deep", "again": "deep", "tool": "#!/bin/sh\n"} {
		if got := content(t, dst+"/"+name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"": os.ModeDir | 0o700, "a": os.ModeDir | os.ModeSticky | 0o700, "tool": os.ModeSetuid | 0o755, "fifo": os.ModeNamedPipe | 0o620,
	} {
		if fi, err := os.Lstat(dst + "/" + name); err != nil || fi.Mode() != mode {
			t.Errorf("%q: mode %v (%v), want %v", name, fi.Mode(), err, mode)
		}
	}
	if to, err := os.Readlink(dst + "/link"); to != "/etc/passwd" {
		t.Errorf("link leads to %q (%v)", to, err)
	}
	if fi, _ := os.Lstat(dst + "/.bashrc"); !fi.ModTime().Equal(past) {
		t.Errorf("time is %v, want %v", fi.ModTime(), past)
	}
	a, _ := os.Lstat(dst + "/again")
	b, _ := os.Lstat(dst + "/a/b/c/file")
	if !os.SameFile(a, b) {
		t.Error("two names of a file became two files")
	}
	if fi, _ := os.Lstat(dst + "/sparse"); fi.Size() != 1<<40 || fi.Sys().(*syscall.Stat_t).Blocks > 64 {
		t.Errorf("sparse file: %d bytes in %d sectors", fi.Size(), fi.Sys().(*syscall.Stat_t).Blocks)
	}
	buf := make([]byte, 16)
	if n, err := unix.Getxattr(dst+"/tool", "user.note", buf); err != nil || !bytes.Equal(buf[:n], []byte("x\x00y")) {
		t.Errorf("extended attribute is %q (%v)", buf[:max(n, 0)], err)
	}
	if _, err := os.Lstat(dst + "/lost+found"); !os.IsNotExist(err) {
		t.Errorf("lost+found is there (%v)", err)
	}
}

// TestFillOnce: what the user has on the disk is never touched again.
func TestFillOnce(t *testing.T) {
	src, dst := fillDirs(t)
	put(t, src, ".profile", "image's")
	if err := doFill(t, dst, src); err != nil {
		t.Fatal(err)
	}
	put(t, dst, ".profile", "user's")
	put(t, dst, "work", "user's")
	if err := doFill(t, dst, src); err != nil {
		t.Fatal(err)
	}
	if a, b := content(t, dst+"/.profile"), content(t, dst+"/work"); a != "user's" || b != "user's" {
		t.Errorf("the user's files became %q and %q", a, b)
	}
}

// TestFillAfterCrash fills a disk on which an earlier boot died midway.
func TestFillAfterCrash(t *testing.T) {
	src, dst := fillDirs(t)
	put(t, src, "a/file", "whole")
	put(t, src, "b", "whole")
	put(t, dst, "a/file", "who") // torn
	put(t, dst, "stale/deep/file", "of what was copied then")
	symlink(t, "/", dst+"/b")
	if err := doFill(t, dst, src); err != nil {
		t.Fatal(err)
	}
	if a, b := content(t, dst+"/a/file"), content(t, dst+"/b"); a != "whole" || b != "whole" {
		t.Errorf("files are %q and %q", a, b)
	}
	if entries, _ := os.ReadDir(dst); len(entries) != 2 {
		t.Errorf("disk holds %v", entries)
	}
}

// TestFillForgedMark: an image cannot claim that a disk was filled.
func TestFillForgedMark(t *testing.T) {
	src, dst := fillDirs(t)
	put(t, src, "sub/file", "x")
	for _, name := range []string{src, src + "/sub"} {
		if err := unix.Setxattr(name, testMark, []byte("forged"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := doFill(t, dst, src); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := unix.Getxattr(dst, testMark, buf); err != nil || string(buf[:n]) != "1" {
		t.Errorf("mark is %q (%v)", buf[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(dst+"/sub", testMark, buf); !errors.Is(err, unix.ENODATA) {
		t.Errorf("the forged mark was copied (%v)", err)
	}
}

func TestFillTooDeep(t *testing.T) {
	src, dst := fillDirs(t)
	// By relative steps: the path is longer than a path may be.
	dir, err := os.Open(src)
	for range maxDepth + 2 {
		if err == nil {
			err = unix.Mkdirat(int(dir.Fd()), "directory", 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		parent := dir
		dir, err = openAt(parent, "directory", unix.O_RDONLY|unix.O_DIRECTORY)
		parent.Close()
	}
	dir.Close()
	if err := doFill(t, dst, src); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("fill = %v", err)
	}
	if _, err := unix.Getxattr(dst, testMark, nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a failed fill left a mark (%v)", err)
	}
	if err := os.RemoveAll(filepath.Dir(src)); err != nil {
		t.Error(err)
	}
}
