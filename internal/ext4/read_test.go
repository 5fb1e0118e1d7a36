package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"banger/internal/hostcmd"
)

// The same tree, in file systems of every kind.
func TestRead(t *testing.T) {
	tree := fullTree(t)
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"ours", []string{"-b", "4096", "-O", features + ",has_journal,resize_inode"}},
		{"1 KiB blocks", []string{"-b", "1024"}},
		{"1 KiB blocks, no checksums", []string{"-b", "1024", "-O", "^metadata_csum,^64bit"}},
		{"64 KiB blocks", []string{"-b", "65536"}},
		{"small inodes", []string{"-I", "128", "-O", "^metadata_csum"}},
		{"inodes of a block", []string{"-b", "1024", "-I", "1024", "-N", "8192"}},
		{"block maps", []string{"-b", "1024", "-O", "^extent,^64bit,^metadata_csum"}},
		{"block maps of 4 KiB", []string{"-b", "4096", "-O", "^extent,^64bit"}},
		{"no flex_bg", []string{"-b", "1024", "-O", "^flex_bg"}},
		{"meta_bg", []string{"-b", "1024", "-O", "meta_bg,^resize_inode"}},
		{"sparse_super2", []string{"-b", "1024", "-O", "sparse_super2,meta_bg,^resize_inode"}},
		{"no sparse_super", []string{"-b", "1024", "-O", "^sparse_super,meta_bg,^resize_inode"}},
		{"bigalloc", []string{"-b", "4096", "-O", "bigalloc"}},
		{"bigalloc of 1 KiB", []string{"-b", "1024", "-O", "bigalloc,meta_bg,^resize_inode", "-N", "4096"}},
		{"csum_seed", []string{"-O", "metadata_csum_seed", "-U", testUUID}},
		{"ext2", []string{"-O", "none,filetype,large_file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // mke2fs waits for the disk
			path := newImage(t, tree, 128<<20, append(tt.args, "-i", "8192")...)
			if tt.name != "ext2" && tt.name != "64 KiB blocks" { // where one block holds all
				index(t, path)
			}
			sameTree(t, openImage(t, path), tree)
		})
	}
}

// Thousands of names, in the order they were made in and with an index.
func TestReadManyNames(t *testing.T) {
	tree := t.TempDir()
	for i := range 2000 {
		name := filepath.Join(tree, fmt.Sprintf("many/a-rather-long-name-of-%05d", i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []string{"4096", "65536"} {
		t.Run(size, func(t *testing.T) {
			path := newImage(t, tree, testSize, "-b", size, "-N", "4096")
			sameTree(t, openImage(t, path), tree)
			index(t, path)
			sameTree(t, openImage(t, path), tree)
		})
	}
}

// index gives directories an index, which mke2fs does not.
func index(t *testing.T, path string) {
	t.Helper()
	if _, err := hostcmd.Run(t.Context(), "e2fsck", "-f", "-D", "-p", path); err != nil {
		t.Fatal(err)
	}
	if out := debugfs(t, path, "htree_dump /many"); !strings.Contains(out, "Root node") {
		t.Errorf("no index: %s", out)
	}
}

// sameTree compares a file system with the tree it was made of.
func sameTree(t *testing.T, s *FS, tree string) {
	t.Helper()
	err := filepath.WalkDir(tree, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(file, tree), "/")
		switch {
		case d.IsDir():
			sameDir(t, s, name, file)
		case d.Type().IsRegular():
			sameFile(t, s, name, file)
		default:
			_, err := s.Open(name)
			if want := kinds[uint16(lstat(t, file).Mode)&modeKind]; err == nil || !strings.Contains(err.Error(), name+": it is "+want) || errors.Is(err, ErrDamaged) {
				t.Errorf("Open(%s) = %v, want it to say %s", name, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sameDir(t *testing.T, s *FS, name, file string) {
	t.Helper()
	got, err := s.ReadDir(name)
	if err != nil {
		t.Errorf("ReadDir(%s): %v", name, err)
	}
	entries, err := os.ReadDir(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		want = append(want, e.Name())
	}
	if name == "/" {
		got = slices.DeleteFunc(got, func(n string) bool { return n == "lost+found" })
	}
	if !slices.Equal(got, want) {
		t.Errorf("ReadDir(%s) = %d names, want %d", name, len(got), len(want))
	}
	if _, err := s.Open(name); err == nil || !strings.Contains(err.Error(), "it is a directory") {
		t.Errorf("Open(%s) = %v", name, err)
	}
}

func sameFile(t *testing.T, s *FS, name, file string) {
	t.Helper()
	if strings.HasPrefix(name, "/many/") && !strings.HasSuffix(name, "99") {
		return // to open one takes reading the directory
	}
	got, err := s.Open(name)
	if err != nil {
		t.Error(err)
		return
	}
	want, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	fi, err := want.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got.Size() != fi.Size() || got.ModTime().Unix() != fi.ModTime().Unix() {
		t.Errorf("%s: %d bytes of %v, want %d of %v", name, got.Size(), got.ModTime(), fi.Size(), fi.ModTime())
	}
	sameBytes(t, name, got, want, fi.Size())
}

func TestOpenRefuses(t *testing.T) {
	s := openImage(t, newImage(t, fullTree(t), testSize, "-b", "1024"))
	for _, tt := range []struct{ path, want string }{
		{"/way/deep/file", "open /way: it is a symbolic link, not a directory"},
		{"/one/x", "open /one: it is a regular file, not a directory"},
		{"/deep/../one/", ""},
		{"//one", ""},
		{"/../one", ""},
		{"/none", "open /none: file does not exist"},
		{"/none/x", "open /none: file does not exist"},
		{"/deep/on", "open /deep/on: file does not exist"},
		{"/" + strings.Repeat("n", longName+1), "file does not exist"},
		{"/one\x00", "file does not exist"},
		{"one", "invalid argument"},
		{"", "invalid argument"},
	} {
		_, err := s.Open(tt.path)
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, fs.ErrNotExist) != strings.Contains(tt.want, "not exist") {
			t.Errorf("Open(%q) = %v, want %q", tt.path, err, tt.want)
		}
	}
	if _, err := s.ReadDir("/one"); err == nil || !strings.Contains(err.Error(), "open /one: it is a regular file, not a directory") {
		t.Errorf("ReadDir of a file: %v", err)
	}
	if _, err := s.ReadDir("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadDir of nothing: %v", err)
	}
}

// Where small files and directories stand in their inodes, those are refused,
// and no others.
func TestInlineData(t *testing.T) {
	tree := t.TempDir()
	large := random(3000)
	err := errors.Join(os.WriteFile(filepath.Join(tree, "large"), large, 0o600), os.WriteFile(filepath.Join(tree, "small"), []byte("x"), 0o600),
		os.MkdirAll(filepath.Join(tree, "dir/dir"), 0o700))
	for i := range 20 { // too many names for the inode of the root
		err = errors.Join(err, os.WriteFile(filepath.Join(tree, strings.Repeat("n", 100+i)), large, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	s := openImage(t, newImage(t, tree, testSize, "-O", "inline_data"))
	if f, err := s.Open("/large"); err != nil {
		t.Error(err)
	} else if b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || !bytes.Equal(b, large) {
		t.Errorf("/large: %d bytes, %v", len(b), err)
	}
	_, fileErr := s.Open("/small")
	_, dirErr := s.ReadDir("/dir")
	for _, err := range []error{fileErr, dirErr} {
		if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "inline_data") {
			t.Errorf("small ones: %v", err)
		}
	}
}

func TestReadAt(t *testing.T) {
	tree := t.TempDir()
	want := random(100_001)
	if err := os.WriteFile(filepath.Join(tree, "f"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openImage(t, newImage(t, tree, testSize, "-b", "1024")).Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), want); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		off  int64
		len  int
		n    int
		want error
	}{
		{0, 0, 0, nil}, {100_001, 0, 0, nil}, {100_000, 1, 1, nil}, {100_000, 2, 1, io.EOF}, {100_001, 1, 0, io.EOF},
		{math.MaxInt64, 1, 0, io.EOF}, {-1, 1, 0, fs.ErrInvalid},
	} {
		if n, err := f.ReadAt(make([]byte, tt.len), tt.off); n != tt.n || !errors.Is(err, tt.want) {
			t.Errorf("ReadAt of %d at %d = %d, %v, want %d, %v", tt.len, tt.off, n, err, tt.n, tt.want)
		}
	}
}

func TestReadAtConcurrently(t *testing.T) {
	tree := t.TempDir()
	scatter(t, filepath.Join(tree, "f"), 400, 4096)
	want, err := os.ReadFile(filepath.Join(tree, "f"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := openImage(t, newImage(t, tree, testSize, "-b", "1024")).Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			b := make([]byte, 5000)
			for off := i * 1000; off < len(want); off += 4000 {
				if n, _ := f.ReadAt(b, int64(off)); !bytes.Equal(b[:n], want[off:off+n]) || n == 0 {
					t.Errorf("other bytes at %d", off)
				}
			}
		})
	}
	wg.Wait()
}

// What was set aside for a file and not written is zeros, whatever stands there.
func TestReadUnwritten(t *testing.T) {
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "f"), random(8192), 0o600); err != nil {
		t.Fatal(err)
	}
	path := newImage(t, tree, testSize, "-b", "4096")
	// Blocks 2 to 9, and a block that was written once.
	debugfs(t, path, "fallocate /f 2 9", "sif /f size 40960")
	f, err := openImage(t, path).Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || !bytes.Equal(b, append(random(8192), make([]byte, 32768)...)) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if out := debugfs(t, path, "ex /f"); !strings.Contains(out, "Uninit") {
		t.Errorf("nothing is unwritten: %s", out)
	}
}

// A long file that is mostly hole costs nothing.
func TestReadHuge(t *testing.T) {
	tree := t.TempDir()
	file := filepath.Join(tree, "f")
	const size = 15 << 40
	if err := errors.Join(os.WriteFile(file, []byte("begins"), 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	f, err := openImage(t, newImage(t, tree, testSize, "-b", "4096")).Open("/f")
	if err != nil || f.Size() != size {
		t.Fatal(f, err)
	}
	b := random(1 << 20)
	if n, err := f.ReadAt(b, size-1<<20+10); n != 1<<20-10 || !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], make([]byte, n)) {
		t.Errorf("ReadAt of its end = %d, %v", n, err)
	}
}

func TestModified(t *testing.T) {
	raw := make([]byte, 256)
	raw[offModified+3] = 0x80 // -2^31
	if got := modified(raw); !got.Equal(time.Unix(math.MinInt32, 0)) {
		t.Errorf("modified = %v", got)
	}
	raw[offExtra] = 32
	raw[offModifiedExt] = 1 | 5<<2
	if got := modified(raw); !got.Equal(time.Unix(1<<31, 5)) {
		t.Errorf("modified with its other part = %v", got)
	}
	if got := modified(raw[:128]); !got.Equal(time.Unix(math.MinInt32, 0)) {
		t.Errorf("modified in a small inode = %v", got)
	}
}

func BenchmarkReadAt(b *testing.B) {
	tree := b.TempDir()
	file := filepath.Join(tree, "f")
	if err := os.WriteFile(file, random(64<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	image, err := openImage(b, newImage(b, tree, 128<<20, "-b", "4096")).Open("/f")
	if err != nil {
		b.Fatal(err)
	}
	plain, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	scatter(b, filepath.Join(tree, "s"), 8192, 8192)
	if err := os.Remove(file); err != nil {
		b.Fatal(err)
	}
	scattered, err := openImage(b, newImage(b, tree, 128<<20, "-b", "1024")).Open("/s")
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name string
		r    io.ReaderAt
	}{{"os.File", plain}, {"File", image}, {"File of 8192 extents", scattered}} {
		b.Run(bb.name, func(b *testing.B) {
			p := make([]byte, 64<<10)
			b.SetBytes(64 << 20)
			for b.Loop() {
				for off := int64(0); off < 64<<20; off += int64(len(p)) {
					if n, err := bb.r.ReadAt(p, off); n != len(p) {
						b.Fatal(n, err)
					}
				}
			}
		})
	}
}
