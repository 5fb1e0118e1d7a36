package ext4

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// patched is an image with other bytes at some places.
type patched struct {
	image []byte
	edits map[int64]byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(p.image)) {
		return 0, io.EOF
	}
	n := copy(b, p.image[off:])
	for at, v := range p.edits {
		if at >= off && at < off+int64(n) {
			b[at-off] = v
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// fuzzImage is a small image, and where in it metadata stand.
type fuzzImage struct {
	bytes    []byte
	metadata []int64
}

const fuzzSize = 1 << 20

func newFuzzImage(f *testing.F, args ...string) fuzzImage {
	f.Helper()
	tree := f.TempDir()
	scatter(f, filepath.Join(tree, "scattered"), 100, 1024)
	if err := errors.Join(os.WriteFile(filepath.Join(tree, "plain"), random(20_000), 0o600),
		os.Mkdir(filepath.Join(tree, "dir"), 0o700), os.WriteFile(filepath.Join(tree, "dir/small"), []byte("small"), 0o600),
		os.Symlink("plain", filepath.Join(tree, "link"))); err != nil {
		f.Fatal(err)
	}
	path := newImage(f, tree, fuzzSize, append([]string{"-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode"}, args...)...)
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return fuzzImage{b, metadata(f, openImage(f, path))}
}

// metadata returns the places at which an edit tells: in the superblock, the
// first group's descriptor, the inodes, and the blocks of directories and maps.
func metadata(f *testing.F, s *FS) (at []int64) {
	f.Helper()
	r := &recorder{ReaderAt: s.r, seen: map[int64]bool{superOffset: true}}
	again, err := OpenFS(r, fuzzSize)
	if err != nil {
		f.Fatal(err)
	}
	touch(f, again, func(file *File) {
		for n := range uint64(file.in.size / again.blockSize) {
			again.leafAt(file.in, n)
		}
	})
	for off := range r.seen {
		for i := range int64(1024) {
			at = append(at, off+i)
		}
	}
	slices.Sort(at)
	return at
}

// recorder notes which KiB of an image are read.
type recorder struct {
	io.ReaderAt
	seen map[int64]bool // by where they begin
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	r.seen[off/1024*1024] = true
	return r.ReaderAt.ReadAt(p, off)
}

// touch lists every directory it finds and calls visit with every file, some
// levels deep.
func touch(t testing.TB, s *FS, visit func(*File)) {
	dirs := []string{"/"}
	for range 20 {
		if len(dirs) == 0 {
			return
		}
		dir := dirs[0]
		dirs = dirs[1:]
		names, err := s.ReadDir(dir)
		fits(t, err)
		for _, name := range names[:min(len(names), 20)] {
			name = filepath.Join(dir, name)
			file, err := s.Open(name)
			fits(t, err)
			if err != nil {
				dirs = append(dirs, name)
				continue
			}
			visit(file)
		}
	}
}

// fits checks that an error is of a kind that was promised.
func fits(t testing.TB, err error) {
	t.Helper()
	var path *fs.PathError
	var bad *DamagedError
	if err != nil && !errors.As(err, &path) && !errors.As(err, &bad) {
		t.Errorf("an error that is neither: %v", err)
	}
	if bad != nil && (bad.From < 0 || bad.To <= bad.From || bad.Path == "" || !errors.Is(err, ErrDamaged)) {
		t.Errorf("%+v", bad)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an image that is all there has ended: %v", err)
	}
}

// Each edit is three bytes: where, as an index into the places that tell, and
// what.
const editBytes, maxEdits = 3, 64

func FuzzFS(f *testing.F) {
	images := []fuzzImage{
		newFuzzImage(f, "-O", "^metadata_csum"),
		newFuzzImage(f, "-O", "^metadata_csum,^extent,^64bit"),
		newFuzzImage(f, "-O", "^metadata_csum,meta_bg", "-g", "256"),
		newFuzzImage(f),
	}
	for i := range images {
		f.Add(byte(i), []byte(nil))
		for at := 0; at < len(images[i].metadata); at += 97 {
			f.Add(byte(i), append(binary.LittleEndian.AppendUint16(nil, uint16(at)), 0xff))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, edits []byte) {
		img := images[int(which)%len(images)]
		p := &patched{img.bytes, make(map[int64]byte)}
		for ; len(edits) >= editBytes && len(p.edits) < maxEdits; edits = edits[editBytes:] {
			at := int(binary.LittleEndian.Uint16(edits)) % len(img.metadata)
			p.edits[img.metadata[at]] = edits[2]
		}
		s, err := OpenFS(p, fuzzSize)
		if err != nil {
			return
		}
		touch(t, s, func(file *File) { readSome(t, file) })
	})
}

// readSome reads the beginning and the end of a file, going around what is
// damaged.
func readSome(t *testing.T, file *File) {
	buf := make([]byte, 3000)
	for _, off := range []int64{0, file.Size() / 2, file.Size() - 5000} {
		for range 20 {
			n, err := file.ReadAt(buf, max(off, 0))
			if n < 0 || n > len(buf) || n < len(buf) && err == nil {
				t.Fatalf("ReadAt = %d, %v", n, err)
			}
			off = max(off, 0) + int64(n)
			if err == io.EOF {
				if off != file.Size() {
					t.Fatalf("end of file at %d of %d", off, file.Size())
				}
				break
			}
			fits(t, err)
			var bad *DamagedError
			if errors.As(err, &bad) {
				if bad.From != off || bad.To > file.Size() {
					t.Fatalf("stopped at %d: %v", off, err)
				}
				off = bad.To
			}
		}
	}
}
