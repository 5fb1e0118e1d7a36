package recipe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"banger/internal/errkind"
	"banger/internal/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func none(string, string, int64, int64) {}

// filler stands for packages: one file.
func filler(n *atomic.Int32) func(context.Context, string) ([]image.Package, error) {
	return func(_ context.Context, dir string) ([]image.Package, error) {
		n.Add(1)
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
			return nil, err
		}
		return []image.Package{{Name: "p", Version: "1"}}, os.WriteFile(filepath.Join(dir, "bin/x"), []byte("x"), 0o755)
	}
}

// newLibrary returns a library in dir whose builds are counted in n.
func newLibrary(t *testing.T, dir string, n *atomic.Int32) *Library {
	t.Helper()
	l, err := New(dir, Options{SizeBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l.testOnlyFill = filler(n)
	return l
}

// staged returns what is left half made.
func staged(t *testing.T, dir string) int {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, ".staging"))
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

func TestBuild(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "images")
	var n atomic.Int32
	l := newLibrary(t, dir, &n)
	if _, err := l.Get(ctx, "busybox"); errkind.Of(err) != errkind.NotFound || errkind.Hints(err)[0] != "banger image build busybox" {
		t.Errorf("Get before = %v, %q", err, errkind.Hints(err))
	}
	a, err := l.Build(ctx, "own", []byte(tiny), none)
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "own" || a.Source != "recipe" || a.DefaultKernel != "debian-cloud" || a.Init != "" || len(a.RecipeHash) != 64 ||
		a.SizeBytes < 32<<20 || a.UsedBytes <= 0 || a.UsedBytes > 4<<20 || len(a.Packages) != 1 || a.CreatedAt.IsZero() {
		t.Errorf("Build = %+v", a)
	}
	b, err := l.Build(ctx, "own", []byte(tiny), none)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(ctx, "own"); err != nil || got.ID != b.ID || a.ID == b.ID {
		t.Errorf("Get = %q, %v, want %q, not %q", got.ID, err, b.ID, a.ID)
	}
	if got, err := l.Version(ctx, "own", a.ID); err != nil || got.Root != a.Root {
		t.Errorf("Version = %+v, %v", got, err)
	}
	if err := l.Prune(ctx, map[string]bool{a.ID: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Version(ctx, "own", a.ID); err != nil {
		t.Errorf("a kept version: %v", err)
	}
	if err := l.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Version(ctx, "own", a.ID); errkind.Of(err) != errkind.NotFound {
		t.Errorf("a pruned version: %v", err)
	}
	list, err := l.List(ctx)
	if err != nil || len(list) != 1 || list[0].ID != b.ID {
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

func TestUnknown(t *testing.T) {
	var n atomic.Int32
	l := newLibrary(t, t.TempDir(), &n)
	ctx := context.Background()
	for _, name := range []string{"debian-bookwrom", "../etc", ""} {
		_, err := l.Get(ctx, name)
		if errkind.Of(err) != errkind.NotFound || len(errkind.Hints(err)) == 0 {
			t.Errorf("Get(%q) = %v, %q", name, err, errkind.Hints(err))
		}
		if _, err := l.Ensure(ctx, name, none); errkind.Of(err) != errkind.NotFound {
			t.Errorf("Ensure(%q) = %v", name, err)
		}
		if err := l.Delete(ctx, name); errkind.Of(err) != errkind.NotFound {
			t.Errorf("Delete(%q) = %v", name, err)
		}
	}
	if _, err := l.Get(ctx, "debian-bookwrom"); !strings.Contains(err.Error(), `"debian-bookworm"`) {
		t.Errorf("Get = %v, want the nearest", err)
	}
	if _, err := l.Build(ctx, "busybx", nil, none); errkind.Of(err) != errkind.NotFound || errkind.Hints(err)[0] != "banger image build busybox" {
		t.Errorf("Build = %v", err)
	}
	if _, err := l.Build(ctx, "A", []byte(tiny), none); errkind.Of(err) != errkind.Usage {
		t.Errorf("Build(A) = %v", err)
	}
	if n.Load() != 0 {
		t.Errorf("%d builds", n.Load())
	}
}

// Two at once build once, in one process and in two.
func TestEnsureOnce(t *testing.T) {
	dir := t.TempDir()
	var n atomic.Int32
	libs := []*Library{newLibrary(t, dir, &n), newLibrary(t, dir, &n)} // as two processes are
	var wg sync.WaitGroup
	ids := make([]string, 6)
	for i := range ids {
		wg.Go(func() {
			img, err := libs[i%2].locked(context.Background(), "x", "x", none, libs[i%2].once("x", Recipe{Kernel: "k", Suite: "s"}))
			if err != nil {
				t.Error(err)
			}
			ids[i] = img.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("IDs = %q", ids)
		}
	}
	if n.Load() != 1 {
		t.Errorf("%d builds, want 1", n.Load())
	}
}

func TestBuildFailsClean(t *testing.T) {
	dir := t.TempDir()
	var n atomic.Int32
	l := newLibrary(t, dir, &n)
	before, err := l.Build(context.Background(), "own", []byte(tiny), none)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		fill func(context.Context, string) ([]image.Package, error)
		want error
	}{
		{"packages fail", func(_ context.Context, dir string) ([]image.Package, error) {
			return nil, errors.Join(broken, os.Mkdir(dir, 0o755))
		}, broken},
		{"canceled", func(ctx context.Context, dir string) ([]image.Package, error) {
			cancel()
			<-ctx.Done()
			return nil, errors.Join(ctx.Err(), os.Mkdir(dir, 0o755))
		}, context.Canceled},
	} {
		l.testOnlyFill = tt.fill
		if _, err := l.Build(ctx, "own", []byte(tiny), none); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := staged(t, dir); n != 0 {
			t.Errorf("%s: %d are left half made", tt.name, n)
		}
		if got, err := l.Get(context.Background(), "own"); err != nil || got.ID != before.ID {
			t.Errorf("%s: the version before is %q, %v", tt.name, got.ID, err)
		}
	}
}

// What is damaged is named in one line, with what mends it.
func TestDamaged(t *testing.T) {
	ctx := context.Background()
	var n atomic.Int32
	for _, tt := range []struct {
		name string
		do   func(i image.Image) error
		file string
	}{
		{"root gone", func(i image.Image) error { return os.Remove(i.Root) }, rootName},
		{"root cut off", func(i image.Image) error { return os.Truncate(i.Root, i.SizeBytes/2) }, rootName},
		{"superblock gone", func(i image.Image) error {
			f, err := os.OpenFile(i.Root, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(make([]byte, 4096), 0)
			return errors.Join(err, f.Close())
		}, rootName},
		{"manifest gone", func(i image.Image) error { return os.Remove(filepath.Join(filepath.Dir(i.Root), "manifest.json")) }, "manifest.json"},
		{"manifest cut off", func(i image.Image) error {
			return os.Truncate(filepath.Join(filepath.Dir(i.Root), "manifest.json"), 20)
		}, "manifest.json"},
	} {
		l := newLibrary(t, t.TempDir(), &n)
		i, err := l.Build(ctx, "busybox", []byte(tiny), none)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.do(i); err != nil {
			t.Fatal(err)
		}
		_, err = l.Get(ctx, "busybox")
		if err == nil || errkind.Of(err) == errkind.NotFound || !strings.Contains(err.Error(), tt.file) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: Get = %v, want one line that names %s", tt.name, err, tt.file)
		} else if h := errkind.Hints(err); len(h) != 1 || h[0] != "banger image build busybox" {
			t.Errorf("%s: hints %q", tt.name, h)
		}
		if _, err := l.Ensure(ctx, "busybox", none); err == nil {
			t.Errorf("%s: Ensure builds over it", tt.name)
		}
		if list, err := l.List(ctx); err != nil || len(list) != 1 || list[0].Name != "busybox" {
			t.Errorf("%s: List = %+v, %v", tt.name, list, err)
		}
		if err := l.Delete(ctx, "busybox"); err != nil {
			t.Errorf("%s: Delete = %v", tt.name, err)
		}
	}
}
