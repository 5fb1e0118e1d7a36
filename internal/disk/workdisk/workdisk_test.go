package workdisk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/hostcmd"
)

func layer(t testing.TB, size int64) disk.Layer {
	t.Helper()
	return disk.Layer{ID: "a1", Dir: t.TempDir(), SizeBytes: size, UID: disktest.UID()}
}

func TestSuite(t *testing.T) {
	shared := New(ext4.MakeEmpty, ext4.Grow)
	t.Run("made", func(t *testing.T) {
		disktest.RunWork(t, func(*testing.T) disk.Work { return New(ext4.MakeEmpty, ext4.Grow) })
	})
	t.Run("from a template", func(t *testing.T) {
		disktest.RunWork(t, func(*testing.T) disk.Work { return shared })
	})
}

// Disks from a template are the same as made ones, byte for byte, sound, and
// as sparse.
func TestTemplate(t *testing.T) {
	calls := 0
	d := New(func(ctx context.Context, path string, size int64) error {
		calls++
		return ext4.MakeEmpty(ctx, path, size)
	}, ext4.Grow)
	var first template
	for i := range 3 {
		l := layer(t, 64<<20)
		if err := d.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if _, err := hostcmd.Run(t.Context(), "e2fsck", "-f", "-n", d.Path(l)); err != nil {
			t.Errorf("disk %d: %v", i, err)
		}
		f, err := os.Open(d.Path(l))
		if err != nil {
			t.Fatal(err)
		}
		got, err := readTemplate(f, l.SizeBytes)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = got
		} else if !equal(first, got) {
			t.Errorf("disk %d is not as the first", i)
		}
	}
	if calls != 1 {
		t.Errorf("%d file systems were made, want 1", calls)
	}
}

func equal(a, b template) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].at != b[i].at || string(a[i].data) != string(b[i].data) {
			return false
		}
	}
	return true
}

func TestTemplateIsBounded(t *testing.T) {
	d := New(func(_ context.Context, path string, size int64) error {
		return os.WriteFile(path, []byte(strings.Repeat("x", int(size))), 0o600)
	}, ext4.Grow)
	for range 2 { // too large to be kept, made each time
		l := layer(t, 32<<20)
		if err := d.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.templates) != 0 {
		t.Errorf("%d templates are kept, want none", len(d.templates))
	}

	d = New(func(_ context.Context, path string, size int64) error { return hole(path, size) }, ext4.Grow)
	for i := range 2 * maxTemplates {
		if err := d.Create(t.Context(), layer(t, minSize+int64(i)*blockSize)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.templates) != maxTemplates {
		t.Errorf("%d templates are kept, want %d", len(d.templates), maxTemplates)
	}
}

func TestTemplateOfSparseFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{4096, 8192, 65536 + 100, 1<<20 - 1} {
		if _, err := f.WriteAt([]byte("x"), at); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readTemplate(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	for _, e := range got {
		at = append(at, e.at, int64(len(e.data)))
	}
	want := []int64{4096, 8192, 65536, 4096, 1<<20 - 4096, 4096}
	if len(at) != len(want) {
		t.Fatalf("extents %v, want %v", at, want)
	}
	for i := range at {
		if at[i] != want[i] {
			t.Fatalf("extents %v, want %v", at, want)
		}
	}
}

// A copy is a sound file system of its own.
func TestCopy(t *testing.T) {
	d := New(ext4.MakeEmpty, ext4.Grow)
	from := layer(t, 64<<20)
	if err := d.Create(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	l := layer(t, from.SizeBytes)
	l.Template = d.Path(from)
	if err := d.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if _, err := hostcmd.Run(t.Context(), "e2fsck", "-f", "-n", d.Path(l)); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(d.Path(from), d.Path(from)+".link"); err != nil {
		t.Fatal(err)
	}
	planted := layer(t, from.SizeBytes)
	planted.Template = d.Path(from) + ".link"
	if err := d.Create(t.Context(), planted); err == nil {
		t.Error("Create followed a link")
	}
}

func hole(path string, size int64) error {
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
}

func TestConcurrently(t *testing.T) {
	d := New(ext4.MakeEmpty, ext4.Grow)
	var wg sync.WaitGroup
	for range 4 {
		l := layer(t, 64<<20)
		wg.Go(func() {
			if err := d.Create(t.Context(), l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCreateFails(t *testing.T) {
	boom := errors.New("boom")
	d := New(func(context.Context, string, int64) error { return boom }, ext4.Grow)
	l := layer(t, 64<<20)
	if err := d.Create(t.Context(), l); !errors.Is(err, boom) {
		t.Errorf("Create = %v", err)
	}
	for name, mkfs := range map[string]Make{
		"a link": func(_ context.Context, path string, size int64) error {
			return os.Symlink("/dev/null", path)
		},
		"of another size": func(_ context.Context, path string, size int64) error { return hole(path, size/2) },
	} {
		if err := New(mkfs, ext4.Grow).Create(t.Context(), l); err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
	}
	if es, err := os.ReadDir(l.Dir); err != nil || len(es) != 0 {
		t.Errorf("%v is left (%v)", es, err)
	}
	l.SizeBytes = minSize + 1
	if err := d.Create(t.Context(), l); errkind.Of(err) != errkind.Usage {
		t.Errorf("Create of an odd size = %v, want an error of kind usage", err)
	}
}

// A VMM that was broken into may put a directory where its disk was.
func TestDeleteOfPlantedDirectory(t *testing.T) {
	d, l := New(ext4.MakeEmpty, ext4.Grow), layer(t, 64<<20)
	if err := os.MkdirAll(filepath.Join(d.Path(l), "deep", "er"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Delete(t.Context(), l); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	if es, err := os.ReadDir(l.Dir); err != nil || len(es) != 0 {
		t.Errorf("Delete left %v (%v)", es, err)
	}
}

func BenchmarkCreate(b *testing.B) {
	for name, disks := range map[string]func() *Disks{
		"made":     func() *Disks { return New(ext4.MakeEmpty, ext4.Grow) },
		"template": sync.OnceValue(func() *Disks { return New(ext4.MakeEmpty, ext4.Grow) }),
	} {
		b.Run(name, func(b *testing.B) {
			l := layer(b, 8<<30)
			for b.Loop() {
				d := disks()
				if err := d.Create(b.Context(), l); err != nil {
					b.Fatal(err)
				}
				if err := d.Delete(b.Context(), l); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
