package disktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/disk"
)

// UID is the user that the suites' layers belong to. Unless the suite runs as
// root it is whoever runs it.
func UID() uint32 {
	if uid := os.Geteuid(); uid != 0 {
		return uint32(uid)
	}
	return 0x62670001
}

// baseSize is that of the suites' images, in bytes.
const baseSize = 1 << 20

// newLayer returns a layer in a directory of its own over an image of its own.
func newLayer(t *testing.T) disk.Layer {
	t.Helper()
	base := filepath.Join(t.TempDir(), "base,1 [x]*.ext4") // hard to quote
	if err := os.WriteFile(base, make([]byte, baseSize), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "vm,[x]*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return disk.Layer{ID: "a1b2c3", Dir: dir, Base: base, SizeBytes: 64 << 20, UID: UID()}
}

// bare is all that Detach and Delete may need of a layer.
func bare(l disk.Layer) disk.Layer { return disk.Layer{ID: l.ID, Dir: l.Dir} }

func entries(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if names := entries(t, dir); len(names) != 0 {
		t.Errorf("%q is left", names)
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// wantDevice checks that what a VMM is to open can be opened by uid, and by
// nobody else.
func wantDevice(t *testing.T, d disk.Device, uid uint32) {
	t.Helper()
	if d.Format != "raw" && d.Format != "qcow2" {
		t.Errorf("Attach = %+v, want a format", d)
	}
	fi, err := os.Lstat(d.Path)
	if err != nil {
		t.Fatalf("Attach = %+v: %v", d, err)
	}
	if fi.Mode().Perm() != 0o600 || fi.Mode().Type() != 0 && fi.Mode().Type() != fs.ModeDevice {
		t.Errorf("%s is %v, want a file or a block device, mode 0600", d.Path, fi.Mode())
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Uid != uid || st.Gid != uid && os.Geteuid() == 0 {
		t.Errorf("%s is of %+v, want user %d", d.Path, st, uid)
	}
}

// wantKept checks that what the layer keeps is a file, and nobody's but uid's
// or that of whoever runs the suite.
func wantKept(t *testing.T, path string, uid uint32) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode() != 0o600 || st.Uid != uid && int(st.Uid) != os.Geteuid() {
		t.Errorf("%s is %v of %+v, want a file of user %d or ours, mode 0600", path, fi.Mode(), st, uid)
	}
}

// wantFile checks that a file belongs to uid, and to nobody else.
func wantFile(t *testing.T, path string, uid uint32) fs.FileInfo {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode() != 0o600 || st.Uid != uid || st.Gid != uid && os.Geteuid() == 0 {
		t.Errorf("%s is %v of %+v, want a file of user %d, mode 0600", path, fi.Mode(), st, uid)
	}
	return fi
}

// RunLayers checks that an implementation keeps what [disk.Layers] promises.
// Layers that need more of the host than files need the test to run as root.
func RunLayers(t *testing.T, newLayers func(t *testing.T) disk.Layers) {
	tests := []struct {
		name string
		run  func(*testing.T, disk.Layers, disk.Layer)
	}{
		{"Life", testLife},
		{"Twice", testTwice},
		{"NothingThere", testNothingThere},
		{"CreateKeepsWhatIsThere", testCreateKeeps},
		{"CreateFails", testCreateFails},
		{"AttachFails", testAttachFails},
		{"BaseIsLeftAlone", testBaseIsLeftAlone},
		{"TwoLayersOfOneBase", testTwoLayers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ls, l := newLayers(t), newLayer(t)
			t.Cleanup(func() {
				if err := ls.Delete(context.WithoutCancel(t.Context()), bare(l)); err != nil {
					t.Errorf("Delete = %v", err)
				}
				wantEmpty(t, l.Dir)
			})
			tt.run(t, ls, l)
		})
	}
}

func create(t *testing.T, ls disk.Layers, l disk.Layer) {
	t.Helper()
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatalf("Create = %v", err)
	}
}

func attach(t *testing.T, ls disk.Layers, l disk.Layer) disk.Device {
	t.Helper()
	d, err := ls.Attach(t.Context(), l)
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	return d
}

func testLife(t *testing.T, ls disk.Layers, l disk.Layer) {
	for range 2 { // what was deleted can be made again
		create(t, ls, l)
		if path := ls.Path(l); !filepath.IsAbs(path) || filepath.Dir(path) != l.Dir {
			t.Errorf("Path = %s, want one in %s", path, l.Dir)
		}
		wantKept(t, ls.Path(l), l.UID)
		for range 2 { // stopped and started
			wantDevice(t, attach(t, ls, l), l.UID)
			if err := ls.Detach(t.Context(), bare(l)); err != nil {
				t.Errorf("Detach = %v", err)
			}
			wantKept(t, ls.Path(l), l.UID)
		}
		if err := ls.Delete(t.Context(), bare(l)); err != nil {
			t.Errorf("Delete = %v", err)
		}
		wantEmpty(t, l.Dir)
	}
}

func testTwice(t *testing.T, ls disk.Layers, l disk.Layer) {
	create(t, ls, l)
	create(t, ls, l)
	if diff := cmp.Diff(attach(t, ls, l), attach(t, ls, l)); diff != "" {
		t.Errorf("Attach twice gave two devices (-first +second):\n%s", diff)
	}
	create(t, ls, l) // also while it is attached
	for range 2 {
		if err := ls.Detach(t.Context(), bare(l)); err != nil {
			t.Errorf("Detach = %v", err)
		}
	}
	attach(t, ls, l)
	for range 2 { // Delete detaches
		if err := ls.Delete(t.Context(), bare(l)); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
}

func testNothingThere(t *testing.T, ls disk.Layers, l disk.Layer) {
	if err := ls.Detach(t.Context(), bare(l)); err != nil {
		t.Errorf("Detach of nothing = %v", err)
	}
	if err := ls.Delete(t.Context(), bare(l)); err != nil {
		t.Errorf("Delete of nothing = %v", err)
	}
	if d, err := ls.Attach(t.Context(), l); err == nil {
		t.Errorf("Attach of nothing = %+v", d)
	}
	gone := l
	gone.Dir = filepath.Join(l.Dir, "gone")
	if err := ls.Delete(t.Context(), bare(gone)); err != nil {
		t.Errorf("Delete without a directory = %v", err)
	}
}

func testCreateKeeps(t *testing.T, ls disk.Layers, l disk.Layer) {
	create(t, ls, l)
	before, err := os.Stat(ls.Path(l))
	if err != nil {
		t.Fatal(err)
	}
	bigger := l
	bigger.SizeBytes *= 2
	create(t, ls, bigger)
	after, err := os.Stat(ls.Path(l))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		t.Error("Create changed a layer that was there")
	}
}

func testCreateFails(t *testing.T, ls disk.Layers, l disk.Layer) {
	for name, edit := range map[string]func(*disk.Layer){
		"no image":       func(l *disk.Layer) { l.Base += ".gone" },
		"image is a dir": func(l *disk.Layer) { l.Base = filepath.Dir(l.Base) },
		"relative image": func(l *disk.Layer) { l.Base = "base" },
		"empty image": func(l *disk.Layer) {
			l.Base += ".empty"
			if err := os.WriteFile(l.Base, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"absurd size": func(l *disk.Layer) { l.SizeBytes = 1 << 62 },
	} {
		bad := l
		edit(&bad)
		if err := ls.Create(t.Context(), bad); err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
		wantEmpty(t, l.Dir)
	}
	if err := ls.Create(cancelled(t), l); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v, want that it was cancelled", err)
	}
	wantEmpty(t, l.Dir)
	gone := l
	gone.Dir = filepath.Join(l.Dir, "gone")
	if err := ls.Create(t.Context(), gone); err == nil {
		t.Error("Create without a directory succeeded")
	}
	wantEmpty(t, l.Dir)
}

func testAttachFails(t *testing.T, ls disk.Layers, l disk.Layer) {
	create(t, ls, l)
	bad := l
	bad.Base += ".gone"
	if d, err := ls.Attach(t.Context(), bad); err == nil {
		t.Errorf("Attach without its image = %+v", d)
	}
	if _, err := ls.Attach(cancelled(t), l); !errors.Is(err, context.Canceled) {
		t.Errorf("Attach = %v, want that it was cancelled", err)
	}
	if err := ls.Detach(t.Context(), bare(l)); err != nil {
		t.Errorf("Detach after that = %v", err)
	}
	attach(t, ls, l)
}

func testBaseIsLeftAlone(t *testing.T, ls disk.Layers, l disk.Layer) {
	before, err := os.Stat(l.Base)
	if err != nil {
		t.Fatal(err)
	}
	create(t, ls, l)
	attach(t, ls, l)
	if err := ls.Delete(t.Context(), bare(l)); err != nil {
		t.Errorf("Delete = %v", err)
	}
	after, err := os.Stat(l.Base)
	if err != nil {
		t.Fatal(err)
	}
	if !before.ModTime().Equal(after.ModTime()) || before.Size() != after.Size() {
		t.Error("the image was changed")
	}
}

func testTwoLayers(t *testing.T, ls disk.Layers, l disk.Layer) {
	other := l
	other.ID, other.Dir = "d4e5f6", t.TempDir()
	create(t, ls, l)
	create(t, ls, other)
	if a, b := attach(t, ls, l), attach(t, ls, other); a.Path == b.Path {
		t.Errorf("two layers have one device: %+v", a)
	}
	if err := ls.Delete(t.Context(), bare(other)); err != nil {
		t.Errorf("Delete = %v", err)
	}
	wantEmpty(t, other.Dir)
	attach(t, ls, l)
}
