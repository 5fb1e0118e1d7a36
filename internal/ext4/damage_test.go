package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// victim is an image that can be damaged, with a file of many extents.
type victim struct {
	t     *testing.T
	path  string
	bytes []byte // of the image, with the damage done so far
	want  []byte // what /f holds
}

// pieces of /f are of two blocks of 1 KiB, each an extent, with a hole behind it.
const pieces, pieceBytes = 200, 2048

func newVictim(t *testing.T, args ...string) *victim {
	t.Helper()
	tree := t.TempDir()
	scatter(t, filepath.Join(tree, "f"), pieces, pieceBytes)
	want, err := os.ReadFile(filepath.Join(tree, "f"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		name := filepath.Join(tree, fmt.Sprintf("dir/%03d", i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	path := newImage(t, tree, 8<<20, append(args, "-b", "1024")...)
	return &victim{t: t, path: path, bytes: readAll(t, path), want: want}
}

// clone returns the same, to be damaged by itself.
func (v *victim) clone(t *testing.T) *victim {
	return &victim{t: t, path: v.path, bytes: bytes.Clone(v.bytes), want: v.want}
}

// numbers asks debugfs, and returns the numbers in what it says that the pattern
// matches first.
func (v *victim) numbers(command, pattern string) []int {
	v.t.Helper()
	out := debugfs(v.t, v.path, command)
	m := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if m == nil {
		v.t.Fatalf("%s does not say %s: %s", command, pattern, out)
	}
	var all []int
	for _, s := range m[1:] {
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			v.t.Fatal(err)
		}
		all = append(all, int(n))
	}
	return all
}

// inodeAt returns where the inode of a file stands in the image.
func (v *victim) inodeAt(name string) int {
	n := v.numbers("imap "+name, `located at block (\d+), offset (0x[0-9a-f]+)`)
	return n[0]*1024 + n[1]
}

// leafAt returns where the i-th leaf of the extents of /f stands in the image,
// and which blocks of the file it is for.
func (v *victim) leafAt(i int) (at, first, end int) {
	n := v.numbers("ex -n /f", fmt.Sprintf(`0/ 1 +%d/ +\d+ +(\d+) - +(\d+) +(\d+)`, i+1))
	return n[2] * 1024, n[0], n[1] + 1
}

func (v *victim) open() *FS {
	v.t.Helper()
	s, err := OpenFS(bytes.NewReader(v.bytes), int64(len(v.bytes)))
	if err != nil {
		v.t.Fatal(err)
	}
	return s
}

// readAround reads /f as somebody does who wants all that can be read, and
// checks it. It returns the parts that cannot be.
func (v *victim) readAround() (bad []DamagedError) {
	v.t.Helper()
	f, err := v.open().Open("/f")
	if err != nil {
		v.t.Fatal(err)
	}
	buf := make([]byte, 5000)
	for off := int64(0); off < f.Size(); {
		n, err := f.ReadAt(buf, off)
		if !bytes.Equal(buf[:n], v.want[off:off+int64(n)]) {
			v.t.Errorf("other bytes at %d", off)
		}
		off += int64(n)
		var d *DamagedError
		switch {
		case errors.As(err, &d):
			if d.From != off || d.To <= off || d.To > f.Size() || d.Path != "/f" || !errors.Is(err, ErrDamaged) {
				v.t.Fatalf("at %d: %v", off, err)
			}
			bad = append(bad, *d)
			off = d.To
		case err != nil && !errors.Is(err, io.EOF):
			v.t.Fatal(err)
		}
	}
	return bad
}

// wantBad checks that one part of /f cannot be read, and why.
func (v *victim) wantBad(first, end int, why string) {
	v.t.Helper()
	bad := v.readAround()
	if len(bad) != 1 || bad[0].From != int64(first)*1024 || bad[0].To != min(int64(end)*1024, int64(len(v.want))) || !strings.Contains(bad[0].Error(), why) {
		v.t.Errorf("damaged are %+v, want blocks %d to %d (%s)", bad, first, end, why)
	}
}

func TestWhole(t *testing.T) {
	for _, args := range [][]string{nil, {"-O", "^metadata_csum"}, {"-O", "^extent,^64bit"}} {
		if bad := newVictim(t, args...).readAround(); bad != nil {
			t.Errorf("%v: damaged are %v", args, bad)
		}
	}
}

// A leaf of the extents with a flipped bit takes what it is for with it.
func TestDamagedLeaf(t *testing.T) {
	v := newVictim(t)
	at, first, end := v.leafAt(1)
	v.bytes[at+100] ^= 1
	v.wantBad(first, end, fmt.Sprintf("extent block %d: damaged: wrong checksum", at/1024))
}

func TestDamagedTree(t *testing.T) {
	le := binary.LittleEndian
	whole := newVictim(t, "-O", "^metadata_csum")
	at, first, end := whole.leafAt(1)
	for _, tt := range []struct {
		name   string
		damage func(leaf []byte)
		why    string
	}{
		{"no leaf", func(b []byte) { b[0] = 0 }, "no node"},
		{"depth", func(b []byte) { b[6] = 1 }, "depth 1 where 0 is due"},
		{"too many", func(b []byte) { le.PutUint16(b[4:], 90) }, "with room for 90"},
		{"more than fit", func(b []byte) { b[2] = b[4] + 1 }, "a node of 85 entries"},
		{"no length", func(b []byte) { le.PutUint16(b[12+4:], 0) }, "out of order"},
		{"in front", func(b []byte) { le.PutUint32(b[12:], 1) }, "out of order"},
		{"swapped", func(b []byte) { copy(b[12:24], b[24:36]) }, "out of order"},
		{"behind", func(b []byte) { le.PutUint16(b[12*82+4:], 9999) }, "out of order"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := whole.clone(t)
			tt.damage(v.bytes[at : at+1024])
			v.wantBad(first, end, tt.why)
		})
	}
	v := whole.clone(t)
	root := v.bytes[v.inodeAt("/f")+offBlock:]
	if le.Uint32(root[24+4:]) != uint32(at/1024) {
		t.Fatal("the second entry of the root leads elsewhere")
	}
	le.PutUint32(root[24+4:], 0xffffff)
	v.wantBad(first, end, "outside the file system")
	le.PutUint32(root[24+4:], 0)
	v.wantBad(first, end, "block 0")
	le.PutUint16(root[2:], 0)
	v.wantBad(0, len(v.want), "without entries")
	le.PutUint16(root[6:], 6)
	v.wantBad(0, len(v.want), "depth 6")
}

// An extent that leads out of the file system takes its own bytes with it, no
// others.
func TestDamagedExtent(t *testing.T) {
	v := newVictim(t, "-O", "^metadata_csum")
	at, first, _ := v.leafAt(1)
	extent := v.bytes[at+12:]
	n := int(binary.LittleEndian.Uint16(extent[4:]))
	binary.LittleEndian.PutUint16(extent[6:], 0xffff)
	v.wantBad(first, first+n, "outside the file system")
	clear(extent[6:12])
	v.wantBad(first, first+n, "block 0 as data")
}

// So with the words of a block map.
func TestDamagedMap(t *testing.T) {
	v := newVictim(t, "-O", "^extent,^64bit,^metadata_csum")
	root := v.bytes[v.inodeAt("/f")+offBlock:]
	le := binary.LittleEndian
	indirect := le.Uint32(root[4*directBlocks:])
	le.PutUint32(root[4*directBlocks:], 0xffffff)
	v.wantBad(12, 12+256, "indirect block 16777215")
	le.PutUint32(root[4*directBlocks:], indirect)
	le.PutUint32(root[0:], 0xffffff)
	v.wantBad(0, 1, "block 16777215 is outside")
}

func TestDamagedInode(t *testing.T) {
	v := newVictim(t)
	at := v.inodeAt("/f")
	v.bytes[at+offModified] ^= 1
	s := v.open()
	if _, err := s.Open("/f"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "open /f: inode") {
		t.Errorf("Open = %v", err)
	}
	if _, err := s.Open("/dir/007"); err != nil {
		t.Errorf("another file: %v", err)
	}
	le := binary.LittleEndian
	whole := newVictim(t, "-O", "^metadata_csum")
	at = whole.inodeAt("/f")
	for _, tt := range []struct {
		name    string
		damage  func(inode []byte)
		why     string
		damaged bool
	}{
		{"no links", func(b []byte) { le.PutUint16(b[offLinks:], 0) }, "deleted", true},
		{"no kind", func(b []byte) { le.PutUint16(b[offMode:], 0o644) }, "mode 0644", true},
		{"too large", func(b []byte) { b[offSizeHi+3] = 0xff }, "a size of", true},
		{"larger than extents can say", func(b []byte) { le.PutUint32(b[offSizeHi:], 1<<10) }, "a size of", true},
		{"attribute", func(b []byte) { b[offFlags+2] |= flagEAInode >> 16 }, "attribute", true},
		{"encrypted", func(b []byte) { b[offFlags+1] |= flagEncrypted >> 8 }, "encrypted", false},
		{"compressed", func(b []byte) { b[offFlags+1] |= flagCompressed >> 8 }, "compressed", false},
		{"verity", func(b []byte) { b[offFlags+2] |= flagVerity >> 16 }, "fs-verity", false},
		{"inline", func(b []byte) { b[offFlags+3] |= flagInline >> 24 }, "inline_data", false},
	} {
		v := whole.clone(t)
		tt.damage(v.bytes[at:])
		if _, err := v.open().Open("/f"); err == nil || errors.Is(err, ErrDamaged) != tt.damaged || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: Open = %v", tt.name, err)
		}
	}
}

// blocksOf returns where the blocks of a file stand in the image.
func (v *victim) blocksOf(name string) (at []int) {
	v.t.Helper()
	for _, s := range strings.Fields(debugfs(v.t, v.path, "blocks "+name)) {
		if n, err := strconv.Atoi(s); err == nil {
			at = append(at, n*1024)
		}
	}
	if len(at) < 2 {
		v.t.Fatalf("%s has %d blocks", name, len(at))
	}
	return at
}

func TestDamagedDirectory(t *testing.T) {
	sums, plain, holed := newVictim(t), newVictim(t, "-O", "^metadata_csum"), newVictim(t)
	debugfs(t, holed.path, "punch /dir 1 1")
	holed.bytes = readAll(t, holed.path)
	for _, tt := range []struct {
		name   string
		whole  *victim
		damage func(block []byte)
		why    string
	}{
		{"sum", sums, func(b []byte) { b[9] ^= 1 }, "wrong checksum"},
		{"sizes", plain, func(b []byte) { b[4] = 3 }, "an entry of 3 bytes"},
		{"name", plain, func(b []byte) { b[6] = 200 }, "a name of 200"},
		{"slash", plain, func(b []byte) { b[8] = '/' }, `an entry of name "/`},
		{"not there", holed, func([]byte) {}, "a hole in a directory"},
		{"end", plain, func(b []byte) { b[4], b[5] = 0xf8, 3 }, "8 bytes where an entry is due"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.whole.clone(t)
			at := v.blocksOf("/dir")[1]
			tt.damage(v.bytes[at : at+1024])
			v.wantNames(200, tt.why)
		})
	}
}

// wantNames checks that some of count names in /dir are left, and that those
// that are not are not called missing.
func (v *victim) wantNames(count int, why string) {
	v.t.Helper()
	s := v.open()
	left, err := s.ReadDir("/dir")
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "read /dir: bytes ") || !strings.Contains(err.Error(), " to 2047: ") || !strings.Contains(err.Error(), why) {
		v.t.Errorf("ReadDir: %v", err)
	}
	if len(left) < count/2 || len(left) == count {
		v.t.Errorf("%d names are left", len(left))
	}
	for i := range count {
		name := fmt.Sprintf("%03d", i)
		_, err := s.Open("/dir/" + name)
		if there := slices.Contains(left, name); there != (err == nil) || !there && !errors.Is(err, ErrDamaged) {
			v.t.Errorf("Open(%s) = %v", name, err)
		}
	}
}

// A directory can be made to hold the same names without end.
func TestEndlessDirectory(t *testing.T) {
	v := newVictim(t, "-O", "^extent,^64bit,^metadata_csum")
	dir := v.bytes[v.inodeAt("/dir"):]
	le := binary.LittleEndian
	names := le.Uint32(dir[offBlock+4:]) // its second block
	double, indirect := v.blocksOf("/f")[0], v.blocksOf("/f")[1]
	for i := 0; i < 1024; i += 4 {
		le.PutUint32(v.bytes[double+i:], uint32(indirect/1024))
		le.PutUint32(v.bytes[indirect+i:], names)
	}
	le.PutUint32(dir[offBlock+4*directBlocks:], uint32(indirect/1024))
	le.PutUint32(dir[offBlock+4*(directBlocks+1):], uint32(double/1024))
	le.PutUint32(dir[offBlock+4*(directBlocks+2):], uint32(double/1024))
	le.PutUint32(dir[offSizeLo:], 1<<31)
	for i := range uint32(directBlocks) {
		le.PutUint32(dir[offBlock+4*i:], names)
	}
	s := v.open()
	if got, err := s.ReadDir("/dir"); !errors.Is(err, errTooMany) || len(got) == 0 || !slices.IsSorted(got) {
		t.Errorf("ReadDir = %d names, %v", len(got), err)
	}
	if _, err := s.Open("/dir/none"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "open /dir: it is a directory of 2147483648 bytes") {
		t.Errorf("Open = %v", err)
	}
}

// An image that was cut off is read as far as it goes.
func TestCutOff(t *testing.T) {
	v := newVictim(t, "-O", "^metadata_csum", "-g", "8192")
	f := v.blocksOf("/f")
	cut := f[100] + 1024 // blocks and those of extents
	v.bytes = v.bytes[:cut]
	bad := v.readAround()
	if len(bad) == 0 || bad[0].From < 50<<10 {
		t.Errorf("damaged are %v", bad)
	}
}

func TestOpenFSRefuses(t *testing.T) {
	whole := newVictim(t, "-O", "^metadata_csum,64bit")
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		damage func(super []byte)
		want   string
	}{
		{"magic", func(b []byte) { b[offMagic] = 0 }, "wrong magic number"},
		{"inode size", func(b []byte) { le.PutUint16(b[offInodeSize:], 2048) }, "inodes of 2048 bytes"},
		{"odd inode size", func(b []byte) { le.PutUint16(b[offInodeSize:], 192) }, "inodes of 192 bytes"},
		{"descriptors", func(b []byte) { le.PutUint16(b[offDescSize:], 0) }, "descriptors of 0 bytes"},
		{"feature", func(b []byte) { b[offIncompat+3] = 0x80 }, "unknown incompatible features 0x80000000"},
		{"compression", func(b []byte) { b[offIncompat] |= 1 }, "unknown incompatible features 0x1"},
		{"journal", func(b []byte) { b[offIncompat] |= 8 }, "unknown incompatible features 0x8"},
	} {
		v := whole.clone(t)
		tt.damage(v.bytes[superOffset:])
		if _, err := OpenFS(bytes.NewReader(v.bytes), int64(len(v.bytes))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: OpenFS = %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, size := range []int64{-1, 0, 1500} {
		if _, err := OpenFS(bytes.NewReader(make([]byte, 4096)), size); !errors.Is(err, ErrNoFileSystem) {
			t.Errorf("OpenFS of %d bytes = %v", size, err)
		}
	}
}

// An image that cannot be read is no damaged one.
func TestReadFails(t *testing.T) {
	v := newVictim(t)
	r := &failing{ReaderAt: bytes.NewReader(v.bytes)}
	s, err := OpenFS(r, int64(len(v.bytes)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	for _, r.err = range []error{os.ErrClosed, io.EOF} {
		want := r.err
		if want == io.EOF {
			want = io.ErrUnexpectedEOF
		}
		_, fileErr := f.ReadAt(make([]byte, 10), 0)
		_, dirErr := s.ReadDir("/dir")
		_, openErr := s.Open("/f")
		for _, err := range []error{fileErr, dirErr, openErr} {
			if !errors.Is(err, want) || errors.Is(err, ErrDamaged) {
				t.Errorf("reads say %v, want %v", err, want)
			}
		}
	}
	r.err = nil
	if _, err := f.ReadAt(make([]byte, 10), 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// failing is a reader that fails when it is to.
type failing struct {
	io.ReaderAt
	err error
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}
