package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/hostcmd"
)

func TestDiskSuiteQcow2(t *testing.T) {
	disktest.RunLayers(t, func(*testing.T) disk.Layers { return Layers{} })
}

func TestTemplateSuiteQcow2(t *testing.T) {
	if _, err := hostcmd.Look("qemu-img"); err != nil {
		t.Fatalf("%v (apt-get install -y qemu-utils)", err)
	}
	disktest.RunTemplates(t, func(*testing.T) disk.Layers { return Layers{} }, medium{})
}

// medium has QEMU's own code read and write overlays.
type medium struct{}

func (medium) Read(t *testing.T, d disk.Device) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	if _, err := hostcmd.Run(t.Context(), "qemu-img", "convert", "-f", d.Format, "-O", "raw", d.Path, raw); err != nil {
		t.Fatalf("qemu-img convert: %v", err)
	}
	return readFile(t, raw)
}

func (medium) Write(t *testing.T, d disk.Device, data []byte, at int64) {
	t.Helper()
	from := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuIO(t, d.Path, fmt.Sprintf("write -s %s %d %d", from, at, len(data)), "flush")
}

func testLayer(t *testing.T, size int64) disk.Layer {
	t.Helper()
	base := filepath.Join(t.TempDir(), "base.ext4")
	f, err := os.Create(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("from the base"); err != nil {
		t.Fatal(err)
	}
	return disk.Layer{ID: "a1", Dir: t.TempDir(), Base: base, SizeBytes: size, UID: disktest.UID()}
}

// What QEMU's own tool says of the file, for sizes around the borders of the
// format: one L1 entry covers 512 MiB, one cluster of them 4 TiB.
func TestAsQEMUReadsIt(t *testing.T) {
	if _, err := hostcmd.Look("qemu-img"); err != nil {
		t.Fatalf("%v (apt-get install -y qemu-utils)", err)
	}
	for name, tt := range map[string]struct{ size, want int64 }{
		"smaller than the base": {512, 1 << 20},
		"one L1 entry":          {512 << 20, 512 << 20},
		"two L1 entries":        {512<<20 + 512, 512<<20 + 512},
		"a machine's":           {16 << 30, 16 << 30},
		"two clusters of L1":    {4<<40 + 512, 4<<40 + 512},
		"the largest":           {maxSize, maxSize},
	} {
		t.Run(name, func(t *testing.T) {
			l := testLayer(t, tt.size)
			if err := (Layers{}).Create(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			path := Layers{}.Path(l)
			if _, err := hostcmd.Run(t.Context(), "qemu-img", "check", path); err != nil {
				t.Errorf("qemu-img check: %v", err)
			}
			out, err := hostcmd.Run(t.Context(), "qemu-img", "info", "--output=json", path)
			if err != nil {
				t.Fatal(err)
			}
			var info struct {
				Size     int64  `json:"virtual-size"`
				Format   string `json:"format"`
				Base     string `json:"full-backing-filename"`
				BaseType string `json:"backing-filename-format"`
				Actual   int64  `json:"actual-size"`
				Dirty    bool   `json:"dirty-flag"`
			}
			if err := json.Unmarshal(out, &info); err != nil {
				t.Fatal(err)
			}
			if info.Size != tt.want || info.Format != "qcow2" || info.Base != l.Base || info.BaseType != "raw" || info.Dirty {
				t.Errorf("qemu-img info = %+v, want a size of %d", info, tt.want)
			}
			if info.Actual > 64<<10 {
				t.Errorf("the overlay takes %d bytes of the host", info.Actual)
			}
		})
	}
}

// QEMU's own code reads the base through the overlay, and writes to it.
func TestWriteThroughQEMU(t *testing.T) {
	l := testLayer(t, 600<<20)
	if err := (Layers{}).Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	path := Layers{}.Path(l)
	_, err := hostcmd.Run(t.Context(), "qemu-io", "-f", "qcow2", path,
		"-c", "read -P 0x66 0 1", // the "f" of "from the base"
		"-c", "read -P 0 16M 4096", // beyond the base
		"-c", "write -P 0xab 4096 8192", "-c", "write -P 0xcd 599M 65536", "-c", "flush",
		"-c", "read -P 0xab 4096 8192", "-c", "read -P 0xcd 599M 65536")
	if err != nil {
		t.Errorf("qemu-io: %v", err)
	}
	if _, err := hostcmd.Run(t.Context(), "qemu-img", "check", path); err != nil {
		t.Errorf("qemu-img check: %v", err)
	}
	if _, err := (Layers{}).Attach(t.Context(), l); err != nil {
		t.Errorf("Attach = %v", err)
	}
}

// A machine's layer over a template's, as QEMU reads it: what the template's boot
// wrote is there, and stays as it was.
func TestOverTemplate(t *testing.T) {
	template := testLayer(t, 600<<20)
	if err := (Layers{}).Create(t.Context(), template); err != nil {
		t.Fatal(err)
	}
	below := Layers{}.Path(template)
	qemuIO(t, below, "write -P 0xab 4096 8192")
	before := readFile(t, below)
	l := template
	l.Dir, l.Template, l.SizeBytes = t.TempDir(), below, 1<<30
	for range 2 {
		if err := (Layers{}).Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Layers{}.Attach(t.Context(), l)
	if err != nil || !slices.Equal(d.Backing, []string{below, l.Base}) {
		t.Errorf("Attach = %+v, %v", d, err)
	}
	qemuIO(t, d.Path, "read -P 0x66 0 1", "read -P 0xab 4096 8192", "write -P 0xcd 8192 4096", "read -P 0xab 4096 4096", "length")
	if !bytes.Equal(readFile(t, below), before) {
		t.Error("the template's layer has changed")
	}
	if _, err := (Layers{}).Attach(t.Context(), disk.Layer{ID: l.ID, Dir: l.Dir, Base: l.Base}); err == nil {
		t.Error("Attach without the template succeeded")
	}
	l.Base, l.Dir = testLayer(t, 1).Base, t.TempDir()
	if err := (Layers{}).Create(t.Context(), l); err == nil || !strings.Contains(err.Error(), "stands on") {
		t.Errorf("Create over a template that stands on another base = %v", err)
	}
}

// qemuIO has QEMU do commands on an overlay.
func qemuIO(t *testing.T, path string, commands ...string) {
	t.Helper()
	argv := []string{"qemu-io", "-f", "qcow2", path}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	if out, err := hostcmd.Run(t.Context(), argv...); err != nil {
		t.Errorf("qemu-io: %v\n%s", err, out)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The overlay's directory belongs to the VMM's user.
func TestAttachOfWhatIsNoOverlay(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"empty":       func(path string) error { return os.Truncate(path, 0) },
		"truncated":   func(path string) error { return os.Truncate(path, 100) },
		"garbage":     func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 8192)), 0o600) },
		"directory":   func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a hard link": func(path string) error { return os.Link(path, path+".other") },
		"a link": func(path string) error {
			if err := os.Rename(path, path+".away"); err != nil {
				return err
			}
			return os.Symlink(path+".away", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := testLayer(t, 64<<20)
			if err := (Layers{}).Create(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			path := Layers{}.Path(l)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			d, err := Layers{}.Attach(t.Context(), l)
			if err == nil {
				t.Errorf("Attach = %+v", d)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("Attach = %v, want the disk's name in it", err)
			}
		})
	}
}

func TestAttachToAnotherBase(t *testing.T) {
	l := testLayer(t, 64<<20)
	if err := (Layers{}).Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	l.Base = testLayer(t, 0).Base
	if d, err := (Layers{}).Attach(t.Context(), l); err == nil {
		t.Errorf("Attach = %+v", d)
	}
}

// A crash between making the file and giving it its name.
func TestDeleteAfterCrash(t *testing.T) {
	l := testLayer(t, 64<<20)
	left := filepath.Join(l.Dir, strings.Replace(staging, "*", "123", 1))
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Layers{}).Delete(t.Context(), disk.Layer{ID: l.ID, Dir: l.Dir}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(left); err == nil {
		t.Errorf("%s is left", left)
	}
}

// A VMM that was broken into may put a directory where its disk was.
func TestDeleteOfPlantedDirectory(t *testing.T) {
	l := testLayer(t, 64<<20)
	if err := os.MkdirAll(filepath.Join(Layers{}.Path(l), "deep", "er"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (Layers{}).Delete(t.Context(), l); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	if es, err := os.ReadDir(l.Dir); err != nil || len(es) != 0 {
		t.Errorf("Delete left %v (%v)", es, err)
	}
}

// What decode takes, encode can write; nothing makes it panic.
func FuzzDecode(f *testing.F) {
	for _, h := range []header{
		{size: 512, base: "/b"}, {size: 16 << 30, base: "/var/cache/banger/images/debian/1/root.ext4"},
		{size: maxSize, base: strings.Repeat("x", maxBase)}, {size: 1 << 30, base: "/template", over: true},
	} {
		blocks, _, err := h.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blocks[0])
	}
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decode(b)
		if err != nil {
			return
		}
		blocks, _, err := h.encode()
		if err != nil {
			t.Fatalf("encode %+v: %v", h, err)
		}
		if again, err := decode(blocks[0]); err != nil || again != h {
			t.Errorf("decode = %+v, %v, want %+v", again, err, h)
		}
	})
}

func BenchmarkCreate(b *testing.B) {
	dir := b.TempDir()
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, make([]byte, 4096), 0o644); err != nil {
		b.Fatal(err)
	}
	l := disk.Layer{ID: "a1", Dir: dir, Base: base, SizeBytes: 16 << 30, UID: disktest.UID()}
	for b.Loop() {
		if err := (Layers{}).Create(b.Context(), l); err != nil {
			b.Fatal(err)
		}
		if err := (Layers{}).Delete(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}
