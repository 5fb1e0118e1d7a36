package dmsnap

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/disk"
)

func TestName(t *testing.T) {
	if got, want := Name("0a1b2c", "d4e5f6a7"), "banger-0a1b2c-d4e5f6a7"; got != want {
		t.Errorf("Name = %q, want %q", got, want)
	}
	for _, bad := range []disk.Layer{
		{ID: "", Dir: "/vm"}, {ID: "a-origin", Dir: "/vm"}, {ID: "../a", Dir: "/vm"}, {ID: "A", Dir: "/vm"},
		{ID: strings.Repeat("a", 120), Dir: "/vm"}, {ID: "a", Dir: "vm"},
	} {
		if err := New(Options{Tag: "0a1b2c"}).checkName(bad); err == nil {
			t.Errorf("checkName(%+v) = nil", bad)
		}
	}
}

// The kernel's own arithmetic (persistent_prepare_exception, area_location):
// where it puts each chunk, and the area that it wipes when one is full.
func TestCowSize(t *testing.T) {
	for _, size := range []int64{
		512, 4096, 4608, 255 << 12, 256 << 12, 256<<12 + 512, 257 << 12, 512 << 12, 16 << 30, 16<<30 + 512,
	} {
		last, next := int64(1), int64(2) // the first area; the first free chunk
		for n := int64(1); n <= (size+chunkSize-1)/chunkSize; n++ {
			last = max(last, next)
			if next++; next%(areaEntries+1) == 1 {
				next++
			}
			if n%areaEntries == 0 {
				last = max(last, 1+(areaEntries+1)*(n/areaEntries))
			}
		}
		if got, want := cowSize(size), (last+1)*chunkSize; got != want {
			t.Errorf("cowSize(%d) = %d, want %d", size, got, want)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	if err := checkHeader(cowHeader()); err != nil {
		t.Error(err)
	}
	for at, name := range map[int]string{0: "magic", 4: "valid", 8: "version", 12: "chunk size"} {
		b := cowHeader()
		binary.LittleEndian.PutUint32(b[at:], 0)
		if err := checkHeader(b); err == nil {
			t.Errorf("%s 0: no error", name)
		}
	}
	if err := checkHeader(nil); err == nil {
		t.Error("nothing: no error")
	}
}

func TestRecord(t *testing.T) {
	l := disk.Layer{ID: "a1", Base: "/i/root.ext4", SizeBytes: 4096}
	r, err := newRecord(l, 8192)
	if err != nil {
		t.Fatal(err)
	}
	if r.Size != 8192 {
		t.Errorf("a disk over an image of 8192 bytes has %d", r.Size)
	}
	again, err := decodeRecord(r.encode())
	if err != nil || again != r {
		t.Errorf("decode = %+v, %v, want %+v", again, err, r)
	}
	for _, size := range []int64{maxSize + 512, 8193} {
		if r, err := newRecord(disk.Layer{SizeBytes: size}, 8192); err == nil {
			t.Errorf("a disk of %d bytes: %+v", size, r)
		}
	}
}

func TestRecordCheck(t *testing.T) {
	made := record{ID: "a1", Base: "/i/1", BaseSize: 4096}
	for name, tt := range map[string]struct {
		recorded string // BaseID
		layer    disk.Layer
		size     int64
		ok       bool
	}{
		"the same":              {"", disk.Layer{ID: "a1", Base: "/i/1"}, 4096, true},
		"the same, known":       {"x", disk.Layer{ID: "a1", Base: "/i/1", BaseID: "x"}, 4096, true},
		"known only then":       {"x", disk.Layer{ID: "a1", Base: "/i/1"}, 4096, true},
		"known only now":        {"", disk.Layer{ID: "a1", Base: "/i/1", BaseID: "x"}, 4096, true},
		"moved, known":          {"x", disk.Layer{ID: "a1", Base: "/i/2", BaseID: "x"}, 4096, true},
		"moved, not known":      {"", disk.Layer{ID: "a1", Base: "/i/2", BaseID: "x"}, 4096, false},
		"another content":       {"x", disk.Layer{ID: "a1", Base: "/i/1", BaseID: "y"}, 4096, false},
		"another size":          {"", disk.Layer{ID: "a1", Base: "/i/1"}, 8192, false},
		"another size, known":   {"x", disk.Layer{ID: "a1", Base: "/i/1", BaseID: "x"}, 8192, false},
		"another machine's":     {"x", disk.Layer{ID: "b2", Base: "/i/1", BaseID: "x"}, 4096, false},
		"the size is its own":   {"", disk.Layer{ID: "a1", Base: "/i/1", SizeBytes: 1 << 40}, 4096, true},
		"neither path nor name": {"x", disk.Layer{ID: "a1", Base: "/i/2"}, 4096, false},
	} {
		r := made
		r.BaseID = tt.recorded
		if err := r.check(tt.layer, tt.size); (err == nil) != tt.ok {
			t.Errorf("%s: check = %v", name, err)
		}
	}
}

// kernelTable is a table as the kernel gives it: "next" is counted from the
// first target.
func kernelTable(table []target) []byte {
	b := encodeTable(table)
	for at, sum := 0, uint32(0); at < len(b); at = int(sum) {
		sum += binary.NativeEndian.Uint32(b[at+20:])
		binary.NativeEndian.PutUint32(b[at+20:], sum)
	}
	return b
}

func TestTable(t *testing.T) {
	r := record{BaseSize: 1 << 20, Size: 16 << 20}
	cmpTarget := cmp.AllowUnexported(target{})
	origin := originTable(0x701, r)
	want := []target{{0, 2048, "linear", "7:1 0"}, {2048, 30720, "zero", ""}}
	if diff := cmp.Diff(want, origin, cmpTarget); diff != "" {
		t.Errorf("originTable (-want +got):\n%s", diff)
	}
	snapshot := snapshotTable(0xfd00, 0x703, r)
	want = []target{{0, 32768, "snapshot", "253:0 7:3 PO 8"}}
	if diff := cmp.Diff(want, snapshot, cmpTarget); diff != "" {
		t.Errorf("snapshotTable (-want +got):\n%s", diff)
	}
	for _, table := range [][]target{origin, snapshot} {
		got, err := decodeTable(kernelTable(table), uint32(len(table)))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(table, got, cmpTarget); diff != "" {
			t.Errorf("decodeTable (-want +got):\n%s", diff)
		}
	}
	if o, c, ok := snapshotParts(snapshot, r); !ok || o != "253:0" || c != "7:3" {
		t.Errorf("snapshotParts = %s, %s, %v", o, c, ok)
	}
	if b, ok := originBase(origin, r); !ok || b != "7:1" {
		t.Errorf("originBase = %s, %v", b, ok)
	}
	r.Size += 4096
	if _, _, ok := snapshotParts(snapshot, r); ok {
		t.Error("snapshotParts takes a disk of another size")
	}
	r.BaseSize += 4096
	if _, ok := originBase(origin, r); ok {
		t.Error("originBase takes a base of another size")
	}
}

func TestParseUsage(t *testing.T) {
	used, total, err := parseUsage("32/33600 16")
	if err != nil || used != 32*512 || total != 33600*512 {
		t.Errorf("parseUsage = %d, %d, %v", used, total, err)
	}
	for _, bad := range []string{"Invalid", "Overflow", "Merge failed", "Unknown", "", "1/", "/1", "-1/2 3", "1/99999999999999999999"} {
		if u, n, err := parseUsage(bad); err == nil {
			t.Errorf("parseUsage(%q) = %d, %d", bad, u, n)
		}
	}
}

// None of this takes device-mapper.
func TestCreate(t *testing.T) {
	ls := New(Options{Tag: "0a1b2c"})
	dir := t.TempDir()
	l := disk.Layer{ID: "a1", Dir: dir, Base: filepath.Join(t.TempDir(), "base"), BaseID: "x", SizeBytes: 16 << 30}
	if err := os.WriteFile(l.Base, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	p, err := openParts(l)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	want := record{Version: 1, ID: "a1", Base: l.Base, BaseSize: 4096, BaseID: "x", Size: 16 << 30, Chunk: 8}
	if p.record != want {
		t.Errorf("record = %+v, want %+v", p.record, want)
	}
	st, err := fstat(p.cow)
	if err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 64<<10 {
		t.Errorf("an empty COW takes %d bytes of the host", st.Blocks*512)
	}
}

// Every file of Create and Attach that was not renamed yet.
func TestDeleteOfStaged(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".root.cow.1.tmp", ".root.cow.json.2.tmp", "root.cow.json", ".root.dev.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "root.cow", "planted"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "work.ext4"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{Tag: "0a1b2c"}).Delete(t.Context(), disk.Layer{ID: "a1", Dir: dir}); err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 || es[0].Name() != "work.ext4" {
		t.Errorf("Delete left %v (%v), want what is not the layer's", es, err)
	}
}

func TestFreeLoopFails(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ls := New(Options{Tag: "0a1b2c"})
	ls.freeLoop = func() (int, error) { return 1 << 19, nil } // far beyond what a host has
	if _, err := ls.bindLoop(t.Context(), f, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bindLoop of a loop without a node = %v", err)
	}
}

func FuzzDecodeTable(f *testing.F) {
	r := record{BaseSize: 1 << 20, Size: 16 << 20}
	f.Add(kernelTable(originTable(0x701, r)), uint32(2))
	f.Add(kernelTable(snapshotTable(0xfd00, 0x703, r)), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, count uint32) {
		table, err := decodeTable(b, count)
		if err == nil && uint32(len(table)) != count {
			t.Errorf("decodeTable of %d targets = %+v", count, table)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(record{Version: 1, ID: "a1", Base: "/b", BaseSize: 4096, Size: 4096, Chunk: 8}.encode())
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if n := cowSize(r.Size); n <= r.Size {
			t.Errorf("%+v takes a COW of %d bytes", r, n)
		}
		if again, err := decodeRecord(r.encode()); err != nil || again != r {
			t.Errorf("decode = %+v, %v, want %+v", again, err, r)
		}
	})
}

func FuzzParseUsage(f *testing.F) {
	f.Add("16/33600 16")
	f.Add("Overflow")
	f.Fuzz(func(t *testing.T, s string) {
		if used, total, err := parseUsage(s); err == nil && (used < 0 || total < 0) {
			t.Errorf("parseUsage(%q) = %d, %d", s, used, total)
		}
	})
}
