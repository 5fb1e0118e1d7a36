package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/hostcmd"
	"banger/internal/kernel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func none(string, string, int64, int64) {}

func newLibrary(t *testing.T) (*Library, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kernels")
	l, err := New(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func mustImport(t *testing.T, l *Library, name string, image []byte, modules io.Reader) kernel.Kernel {
	t.Helper()
	k, err := l.Import(context.Background(), name, bytes.NewReader(image), modules, none)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func staged(t *testing.T, dir string) int {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, ".staging"))
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

func TestImport(t *testing.T) {
	ctx := context.Background()
	l, dir := newLibrary(t)
	elf := newELF()
	k := mustImport(t, l, "own", newBzImage(packGzip(t, elf)), nil)
	if k.Name != "own" || k.Version != testVersion || k.Source != "import" || k.ModulesDisk != "" || len(k.BootModules) != 0 || k.SizeBytes != int64(len(elf)) {
		t.Errorf("Import = %+v", k)
	}
	if got, err := os.ReadFile(k.VMLinux); err != nil || !bytes.Equal(got, elf) {
		t.Errorf("another kernel came out: %v", err)
	}
	same := mustImport(t, l, "own", newBzImage(packGzip(t, elf)), strings.NewReader(""))
	if same.ID != k.ID {
		t.Errorf("the same kernel has the IDs %s and %s", k.ID, same.ID)
	}
	// The one before stays, older ones go.
	other := mustImport(t, l, "own", elf, nil)
	mustImport(t, l, "own", append(bytes.Clone(elf), 0), nil)
	ids, err := l.store.Versions("own")
	if err != nil || len(ids) != 2 || l.store.Dir("own", other.ID) != filepath.Dir(other.VMLinux) {
		t.Errorf("versions are %q, %v", ids, err)
	}
	if _, err := os.Stat(other.VMLinux); err != nil {
		t.Errorf("the version before: %v", err)
	}
	list, err := l.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "own" {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := l.Delete(ctx, "own"); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete(ctx, "own"); errkind.Of(err) != errkind.NotFound {
		t.Errorf("Delete again = %v", err)
	}
	if n := staged(t, dir); n != 0 {
		t.Errorf("%d are left half made", n)
	}
}

func TestImportModules(t *testing.T) {
	l, _ := newLibrary(t)
	const in = "lib/modules/" + testVersion + "/"
	module := string(newELF()[:4096]) // depmod looks no further than at its sections, of which there are none
	data := newTar(t,
		entry{name: in + "kernel/drivers/virtio_blk.ko.xz", text: string(packXZ(t, []byte(module)))},
		entry{name: in + "kernel/drivers/char/virtio-rng.ko", text: module},
		entry{name: in + "modules.builtin", text: "kernel/fs/ext4/ext4.ko\n"},
		entry{name: in + "modules.order", text: "kernel/drivers/virtio_blk.ko\n"},
	)
	k := mustImport(t, l, "own", newELF(), bytes.NewReader(data))
	var names []string
	for _, b := range k.BootModules {
		names = append(names, filepath.Base(b))
		if got, err := os.ReadFile(b); err != nil || string(got) != module {
			t.Errorf("%s is another: %v", b, err)
		}
	}
	if d := cmp.Diff([]string{"virtio_blk.ko", "virtio_rng.ko"}, names); d != "" {
		t.Errorf("boot modules (-want +got):\n%s", d)
	}
	if _, err := ext4.Check(k.ModulesDisk); err != nil {
		t.Error(err)
	}
	out, err := hostcmd.Run(context.Background(), "debugfs", "-R", "cat /modules.dep", k.ModulesDisk)
	if err != nil || !strings.Contains(string(out), "kernel/drivers/virtio_blk.ko:") {
		t.Errorf("modules.dep = %q, %v", out, err)
	}
}

func TestImportRefuses(t *testing.T) {
	l, dir := newLibrary(t)
	before := mustImport(t, l, "own", newELF(), nil)
	noVersion := bytes.ReplaceAll(newELF(), []byte(banner), []byte("Minix version "))
	const in = "lib/modules/" + testVersion + "/"
	for _, tt := range []struct {
		name           string
		image, modules []byte
	}{
		{"empty", nil, nil},
		{"garbage", bytes.Repeat([]byte("garbage"), 1000), nil},
		{"cut off", newELF()[:5000], nil},
		{"no Linux", noVersion, nil},
		{"modules of another kernel", newELF(), newTar(t, entry{name: "lib/modules/5.0/a.ko", text: "x"})},
		{"modules are no tar", newELF(), []byte("garbage")},
		{"no disk driver", newELF(), newTar(t, entry{name: in + "modules.builtin", text: "kernel/fs/ext4/ext4.ko\n"})},
	} {
		_, err := l.Import(context.Background(), "own", bytes.NewReader(tt.image), bytes.NewReader(tt.modules), none)
		if errkind.Of(err) != errkind.Usage || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want a usage error in one line", tt.name, err)
		}
		if n := staged(t, dir); n != 0 {
			t.Errorf("%s: %d are left half made", tt.name, n)
		}
	}
	broken := errors.New("broken")
	if _, err := l.Import(context.Background(), "own", io.MultiReader(bytes.NewReader(newELF()), errReader{broken}), nil, none); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Import(ctx, "own", bytes.NewReader(newELF()), nil, none); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled = %v", err)
	}
	if _, err := l.Import(context.Background(), "../own", bytes.NewReader(newELF()), nil, none); errkind.Of(err) != errkind.Usage {
		t.Errorf("a bad name = %v", err)
	}
	if k, err := l.Get(context.Background(), "own"); err != nil || k.ID != before.ID {
		t.Errorf("the version before = %+v, %v", k, err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestUnknown(t *testing.T) {
	l, _ := newLibrary(t)
	ctx := context.Background()
	for name, hint := range map[string]string{"debian-cloud": "banger kernel pull debian-cloud", "debian-clod": "banger kernel list", "../x": "banger kernel list", "": "banger kernel list"} {
		_, err := l.Get(ctx, name)
		if h := errkind.Hints(err); errkind.Of(err) != errkind.NotFound || len(h) != 1 || h[0] != hint {
			t.Errorf("Get(%q) = %v, %q", name, err, h)
		}
		if err := l.Delete(ctx, name); errkind.Of(err) != errkind.NotFound {
			t.Errorf("Delete(%q) = %v", name, err)
		}
	}
	for _, f := range []func(context.Context, string, kernel.Progress) (kernel.Kernel, error){l.Ensure, l.Pull} {
		if _, err := f(ctx, "nonesuch", none); errkind.Of(err) != errkind.NotFound {
			t.Errorf("nonesuch = %v", err)
		}
	}
}

// What is damaged is named in one line, with what mends it.
func TestDamaged(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name string
		do   func(k kernel.Kernel) error
		file string
	}{
		{"kernel gone", func(k kernel.Kernel) error { return os.Remove(k.VMLinux) }, vmlinuxName},
		{"kernel cut off", func(k kernel.Kernel) error { return os.Truncate(k.VMLinux, 5000) }, vmlinuxName},
		{"kernel of zeros", func(k kernel.Kernel) error {
			return errors.Join(os.Truncate(k.VMLinux, 0), os.Truncate(k.VMLinux, k.SizeBytes))
		}, vmlinuxName},
		{"manifest gone", func(k kernel.Kernel) error { return os.Remove(filepath.Join(filepath.Dir(k.VMLinux), "manifest.json")) }, "manifest.json"},
		{"manifest cut off", func(k kernel.Kernel) error {
			return os.Truncate(filepath.Join(filepath.Dir(k.VMLinux), "manifest.json"), 20)
		}, "manifest.json"},
	} {
		l, _ := newLibrary(t)
		if err := tt.do(mustImport(t, l, "debian-cloud", newELF(), nil)); err != nil {
			t.Fatal(err)
		}
		_, err := l.Get(ctx, "debian-cloud")
		if err == nil || errkind.Of(err) == errkind.NotFound || !strings.Contains(err.Error(), tt.file) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Get = %v, want one line that names %s", tt.name, err, tt.file)
		} else if h := errkind.Hints(err); len(h) != 1 || h[0] != "banger kernel pull debian-cloud" {
			t.Errorf("%s: hints %q", tt.name, h)
		}
		if _, err := l.Ensure(ctx, "debian-cloud", none); err == nil {
			t.Errorf("%s: Ensure went on", tt.name)
		}
		if list, err := l.List(ctx); err != nil || len(list) != 1 || list[0].Name != "debian-cloud" {
			t.Errorf("%s: List = %+v, %v", tt.name, list, err)
		}
		if err := l.Delete(ctx, "debian-cloud"); err != nil {
			t.Errorf("%s: Delete = %v", tt.name, err)
		}
	}
}
