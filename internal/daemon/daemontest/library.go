package daemontest

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"banger/internal/errkind"
	"banger/internal/image"
	"banger/internal/kernel"
)

// Images is a pretend image library: recipes of the given names can be built,
// into files of one byte.
type Images struct {
	Dir     string
	Recipes []string

	mu     sync.Mutex
	built  map[string][]image.Image // versions, the current one last
	Builds int                      // how many there have been; guarded by mu
	Fail   error                    // of the next build; guarded by mu
}

var _ image.Library = (*Images)(nil)

// List returns the current version of every image.
func (l *Images) List(context.Context) ([]image.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []image.Image
	for _, name := range l.Recipes {
		if vs := l.built[name]; len(vs) > 0 {
			out = append(out, vs[len(vs)-1])
		}
	}
	return out, nil
}

// Get returns an image that was built.
func (l *Images) Get(_ context.Context, name string) (image.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if vs := l.built[name]; len(vs) > 0 {
		return vs[len(vs)-1], nil
	}
	return image.Image{}, l.unknown(name)
}

func (l *Images) unknown(name string) error {
	return errkind.WithHint(errkind.New(errkind.NotFound, "no image %q; the nearest is %q", name, errkind.Nearest(name, l.Recipes)[0]), "banger image list")
}

// Version returns one version.
func (l *Images) Version(_ context.Context, name, id string) (image.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.built[name] {
		if i.ID == id {
			return i, nil
		}
	}
	return image.Image{}, errkind.New(errkind.NotFound, "no version %s of image %q", id, name)
}

// Ensure builds an image that is not there.
func (l *Images) Ensure(ctx context.Context, name string, p image.Progress) (image.Image, error) {
	if i, err := l.Get(ctx, name); err == nil {
		return i, nil
	}
	return l.Build(ctx, name, nil, p)
}

// Build builds one of the recipes, or whatever a recipe's text is called.
func (l *Images) Build(_ context.Context, name string, recipe []byte, p image.Progress) (image.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if recipe == nil && !slices.Contains(l.Recipes, name) {
		return image.Image{}, l.unknown(name)
	}
	if err := l.Fail; err != nil {
		l.Fail = nil
		return image.Image{}, err
	}
	p("build image "+name, "", 1, 1)
	l.Builds++
	if recipe != nil && !slices.Contains(l.Recipes, name) {
		l.Recipes = append(l.Recipes, name)
	}
	id := string(rune('a'+len(l.built[name]))) + "0"
	root := filepath.Join(l.Dir, name+"-"+id)
	if err := os.WriteFile(root, []byte{0}, 0o644); err != nil {
		return image.Image{}, err
	}
	i := image.Image{Name: name, ID: id, Root: root, Source: "recipe", SizeBytes: 1, UsedBytes: 1, DefaultKernel: "fake", CreatedAt: time.Now()}
	if l.built == nil {
		l.built = make(map[string][]image.Image)
	}
	l.built[name] = append(l.built[name], i)
	return i, nil
}

// Delete removes every version.
func (l *Images) Delete(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.built[name]) == 0 {
		return l.unknown(name)
	}
	delete(l.built, name)
	return nil
}

// Prune removes what is neither current nor kept.
func (l *Images) Prune(_ context.Context, keep map[string]bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, vs := range l.built {
		last := vs[len(vs)-1].ID
		l.built[name] = slices.DeleteFunc(vs, func(i image.Image) bool { return i.ID != last && !keep[i.ID] })
	}
	return nil
}

// Kernels is a pretend kernel library with one kernel that can be pulled,
// "fake".
type Kernels struct {
	Dir string

	mu   sync.Mutex
	have map[string]kernel.Kernel
}

var _ kernel.Library = (*Kernels)(nil)

// List returns every kernel.
func (l *Kernels) List(context.Context) ([]kernel.Kernel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []kernel.Kernel
	for _, k := range l.have {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b kernel.Kernel) int { return len(a.Name) - len(b.Name) })
	return out, nil
}

// Get returns a kernel that was pulled or imported.
func (l *Kernels) Get(_ context.Context, name string) (kernel.Kernel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.have[name]; ok {
		return k, nil
	}
	return kernel.Kernel{}, errkind.WithHint(errkind.New(errkind.NotFound, "no kernel %q", name), "banger kernel list")
}

// Ensure pulls a kernel that is not there.
func (l *Kernels) Ensure(ctx context.Context, name string, p kernel.Progress) (kernel.Kernel, error) {
	if k, err := l.Get(ctx, name); err == nil {
		return k, nil
	}
	return l.Pull(ctx, name, p)
}

// Pull pulls the kernel called "fake".
func (l *Kernels) Pull(_ context.Context, name string, p kernel.Progress) (kernel.Kernel, error) {
	if name != "fake" {
		return kernel.Kernel{}, errkind.New(errkind.NotFound, "no kernel %q can be pulled; there is %q", name, "fake")
	}
	p("pull kernel "+name, "", 1, 1)
	return l.add(name, "debian")
}

// Import reads both files and keeps neither.
func (l *Kernels) Import(_ context.Context, name string, img, modules io.Reader, _ kernel.Progress) (kernel.Kernel, error) {
	n, err := io.Copy(io.Discard, img)
	if err != nil {
		return kernel.Kernel{}, err
	}
	if n == 0 {
		return kernel.Kernel{}, errkind.New(errkind.Usage, "the kernel image is empty")
	}
	if _, err := io.Copy(io.Discard, modules); err != nil {
		return kernel.Kernel{}, err
	}
	return l.add(name, "import")
}

func (l *Kernels) add(name, source string) (kernel.Kernel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.WriteFile(filepath.Join(l.Dir, "vmlinux"), []byte{0}, 0o644); err != nil {
		return kernel.Kernel{}, err
	}
	if l.have == nil {
		l.have = make(map[string]kernel.Kernel)
	}
	k := kernel.Kernel{Name: name, Version: "6.1.0-fake", ID: "f0", Source: source, SizeBytes: 1, CreatedAt: time.Now(), VMLinux: filepath.Join(l.Dir, "vmlinux")}
	l.have[name] = k
	return k, nil
}

// Delete removes a kernel.
func (l *Kernels) Delete(ctx context.Context, name string) error {
	if _, err := l.Get(ctx, name); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.have, name)
	return nil
}
