package fetch

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
)

type entry struct {
	name, text string
	typ        byte // 0: a regular file
	link       string
}

func newTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: e.typ, Linkname: e.link}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// files returns what stands under dir, and its content.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			t.Errorf("%s is no file", p)
		}
		text, err := os.ReadFile(p)
		name, _ := filepath.Rel(dir, p) // both below dir
		out[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpackModules(t *testing.T) {
	const v = testVersion
	text := strings.Repeat("a module", 100)
	data := newTar(t,
		entry{name: "lib/modules/" + v + "/", typ: tar.TypeDir},
		entry{name: "lib/modules/" + v + "/kernel/a.ko", text: text},
		entry{name: "./lib/modules/" + v + "/kernel/b.ko.xz", text: string(packXZ(t, []byte(text)))},
		entry{name: "usr/lib/modules/" + v + "/kernel/c.ko.zst", text: string(packZstd(t, []byte(text)))},
		entry{name: v + "/kernel/d.ko.gz", text: string(packGzip(t, []byte(text)))},
		entry{name: "lib/modules/" + v + "/modules.builtin", text: "kernel/fs/ext4/ext4.ko\n"},
		entry{name: "lib/modules/" + v + "/build", typ: tar.TypeSymlink, link: "/usr/src"},
		entry{name: "lib/modules/" + v + "/kernel/hard.ko", typ: tar.TypeLink, link: "/etc/shadow"},
		entry{name: "lib/modules/" + v + "/kernel/dev", typ: tar.TypeChar},
		entry{name: "lib/modules/6.0.0/kernel/old.ko", text: "x"},
		entry{name: "lib/modules/" + v + "/../../../../evil", text: "x"},
		entry{name: "/lib/modules/" + v + "/../" + v + "/../../x", text: "x"},
		entry{name: "lib/modules/" + v + "/with space.ko", text: "x"},
		entry{name: "boot/vmlinuz", text: "kernel"},
	)
	dir := t.TempDir()
	r := bytes.NewReader(append(data, make([]byte, 10_000)...))
	n, err := unpackModules(r, openRoot(t, dir), v, nil)
	if err != nil || n != 5 {
		t.Errorf("unpackModules = %d, %v, want 5", n, err)
	}
	if r.Len() != 0 {
		t.Errorf("%d bytes are not read", r.Len())
	}
	want := map[string]string{"kernel/a.ko": text, "kernel/b.ko": text, "kernel/c.ko": text, "kernel/d.ko": text, "modules.builtin": "kernel/fs/ext4/ext4.ko\n"}
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Errorf("modules (-want +got):\n%s", d)
	}
}

func TestUnpackModulesRefuses(t *testing.T) {
	const in = "lib/modules/" + testVersion + "/"
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"no tar", bytes.Repeat([]byte("garbage"), 1000)},
		{"cut off", newTar(t, entry{name: in + "a.ko", text: strings.Repeat("x", 2000)})[:1000]},
		{"twice", newTar(t, entry{name: in + "a.ko", text: "x"}, entry{name: in + "a.ko", text: "y"})},
		{"twice, once packed", newTar(t, entry{name: in + "a.ko", text: "x"}, entry{name: in + "a.ko.gz", text: string(packGzip(t, nil))})},
		{"damaged module", newTar(t, entry{name: in + "a.ko.xz", text: "garbage"})},
		{"a file where a directory is", newTar(t, entry{name: in + "a", text: "x"}, entry{name: in + "a/b", text: "x"})},
	} {
		if n, err := unpackModules(bytes.NewReader(tt.data), openRoot(t, t.TempDir()), testVersion, nil); err == nil {
			t.Errorf("%s: %d files and no error", tt.name, n)
		}
	}
}

func TestBootOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		// As depmod writes it: the deepest need last.
		"modules.dep": "kernel/drivers/virtio/virtio_ring.ko:\n" +
			"kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n" +
			"kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n" +
			"kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n" +
			"kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n" +
			"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n" +
			"kernel/fs/jbd2/jbd2.ko: kernel/fs/ext4/ext4.ko\n" + // a circle
			"kernel/crypto/crc32c_generic.ko:\nkernel/other.ko:\n",
		"modules.softdep": "# Soft dependencies\nsoftdep ext4 pre: crc32c post: other\nsoftdep x\n",
		"modules.alias":   "alias crc32c crc32c_generic\nalias pci:v* other\nalias crc32c second\n",
		"modules.builtin": "kernel/drivers/net/virtio_net.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := openRoot(t, dir)
	m, err := readModules(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.bootOrder()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_mmio.ko", "kernel/drivers/block/virtio_blk.ko",
		"kernel/drivers/char/hw_random/virtio-rng.ko", "kernel/crypto/crc32c_generic.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("bootOrder (-want +got):\n%s", d)
	}
	delete(m.path, "ext4")
	if _, err := m.bootOrder(); errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), "ext4") {
		t.Errorf("without ext4: %v", err)
	}
	m.builtin["ext4"] = true
	if _, err := m.bootOrder(); err != nil {
		t.Errorf("with ext4 built in: %v", err)
	}
}

func FuzzModuleName(f *testing.F) {
	f.Add("./lib/modules/6.1/kernel/a.ko")
	f.Add("6.1/../../x")
	f.Fuzz(func(t *testing.T, name string) {
		if sub := moduleName(name, "6.1"); sub != "" && (!filepath.IsLocal(sub) || strings.Contains(sub, "..") && !strings.Contains(name, "..")) {
			t.Errorf("moduleName(%q) = %q", name, sub)
		}
	})
}
