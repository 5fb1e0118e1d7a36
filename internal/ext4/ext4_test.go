package ext4

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/hostcmd"
)

// size of the file systems made here.
const testSize = 64 << 20

const testUUID = "6f1c2a5e-0d4b-4f3e-9a57-1c2d3e4f5a6b"

func TestMakeEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "work.ext4")
	if err := MakeEmpty(context.Background(), path, 8<<30); err != nil {
		t.Fatal(err)
	}
	s, err := Check(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.SizeBytes != 8<<30 || s.BlockSize != blockSize {
		t.Errorf("Check = %+v, want 8 GiB in blocks of %d", s, blockSize)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	if used := usedBytes(t, path); used > 1<<20 {
		t.Errorf("an empty file system uses %d bytes of the disk, want under 1 MiB", used)
	}
	fsck(t, path)
}

// fixTimes gives a tree access times that reading it does not change: mke2fs
// copies them, and two runs in different seconds would differ.
func fixTimes(t *testing.T, tree string) {
	t.Helper()
	later := unix.NsecToTimeval(time.Now().Add(time.Hour).UnixNano())
	err := filepath.WalkDir(tree, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lutimes(path, []unix.Timeval{later, {Sec: 1e9}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMakeFrom(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/motd"), []byte("hello\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/motd", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	fixTimes(t, tree)
	var images [2][]byte
	for i := range images {
		path := filepath.Join(dir, string(rune('a'+i)))
		size, err := Fit(tree, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{SizeBytes: size, From: tree, Label: "root", UUID: testUUID, ReadOnly: true, Unix: 1e9}
		if err := Make(context.Background(), path, o); err != nil {
			t.Fatal(err)
		}
		fsck(t, path)
		s, err := Check(path)
		if err != nil || s.Label != "root" {
			t.Fatalf("Check = %+v, %v", s, err)
		}
		if images[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the same tree gave two file systems")
	}
	out, err := hostcmd.Run(context.Background(), "debugfs", "-R", "cat /etc/motd", filepath.Join(dir, "a"))
	if err != nil || string(out) != "hello\n" {
		t.Errorf("cat /etc/motd = %q, %v", out, err)
	}
}

func TestMakeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		o    Options
	}{
		{"no size", context.Background(), Options{}},
		{"odd size", context.Background(), Options{SizeBytes: testSize + 1}},
		{"negative size", context.Background(), Options{SizeBytes: -testSize}},
		{"no tree", context.Background(), Options{SizeBytes: testSize, From: filepath.Join(dir, "none")}},
		{"canceled", canceled, Options{SizeBytes: testSize}},
	} {
		if err := Make(tt.ctx, path, tt.o); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: file left: %v", tt.name, err)
		}
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeEmpty(context.Background(), path, testSize); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("the file that was there = %q, %v", got, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := MakeEmpty(context.Background(), path, testSize); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"short", whole[:1500]},
		{"truncated", whole[:testSize/2]},
		{"zeros", make([]byte, 4096)},
		{"flipped", append(append(bytes.Clone(whole[:superOffset+offUUID]), ^whole[superOffset+offUUID]), whole[superOffset+offUUID+1:]...)},
	} {
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Check(path); err == nil {
			t.Errorf("%s: Check = %+v, no error", tt.name, s)
		}
	}
}

func FuzzReadSuper(f *testing.F) {
	var b [superSize]byte
	f.Add(b[:])
	le := binary.LittleEndian
	le.PutUint16(b[offMagic:], magic)
	le.PutUint32(b[offBlocksLo:], 1<<20)
	le.PutUint32(b[offLogBlock:], 2)
	for _, at := range []int{offInodes, offPerGroup, offInodesPer} {
		le.PutUint32(b[at:], 8192)
	}
	copy(b[offLabel:], "a label of 16 by")
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, super []byte) {
		s, err := ReadSuper(bytes.NewReader(append(make([]byte, superOffset), super...)))
		if err != nil {
			if !errors.Is(err, ErrNoFileSystem) {
				t.Fatal(err)
			}
			return
		}
		if s.SizeBytes <= 0 || s.BlockSize < 1024 || s.BlockSize > 64<<10 || s.SizeBytes%s.BlockSize != 0 || len(s.Label) > 16 {
			t.Errorf("ReadSuper = %+v", s)
		}
	})
}

func fsck(t *testing.T, path string) {
	t.Helper()
	if _, err := hostcmd.Run(context.Background(), "e2fsck", "-f", "-n", path); err != nil {
		t.Errorf("e2fsck: %v", err)
	}
}

func usedBytes(t *testing.T, path string) int64 {
	t.Helper()
	return lstat(t, path).Blocks * 512
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}
