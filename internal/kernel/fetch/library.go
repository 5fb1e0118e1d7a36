// Package fetch is the library of kernels: it fetches Debian's cloud kernel
// from the archive, takes kernels that users bring, and keeps both ready to
// boot. See [banger/internal/filestore] for where files stand.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger/internal/errkind"
	"banger/internal/filestore"
	"banger/internal/flight"
	"banger/internal/kernel"
)

// Files of one version.
const (
	vmlinuxName = "vmlinux"
	modulesName = "modules.ext4"
	bootDir     = "boot" // modules for an initramfs
)

// sourceDamaged stands for the source of a kernel whose record cannot be read.
const sourceDamaged = "damaged"

// format of manifests and of what they tell of; another is not understood.
const format = 1

// Options are all optional.
type Options struct {
	Mirror string           // of Debian; empty: the host's own apt configuration
	Now    func() time.Time // nil: time.Now
}

// Library implements [kernel.Library] in a directory that several processes
// may use. Use [New] to get one.
type Library struct {
	store *filestore.Store
	o     Options
	pulls flight.Group[kernel.Kernel]
}

var _ kernel.Library = (*Library)(nil)

// New returns the library in dir, which is made if it is not there.
func New(dir string, o Options) (*Library, error) {
	store, err := filestore.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open kernel library: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Library{store: store, o: o}, nil
}

// manifest is what is stored of a kernel.
type manifest struct {
	Format         int              `json:"format"`
	Name           string           `json:"name"`
	Version        string           `json:"version"`
	ID             string           `json:"id"`
	Source         string           `json:"source"`
	PackageVersion string           `json:"package_version,omitempty"`
	CreatedAt      time.Time        `json:"created_at"`
	BootModules    []string         `json:"boot_modules"` // in the order of loading
	Files          []filestore.File `json:"files"`
}

// List returns every kernel. One whose record cannot be read has a name and
// the source "damaged", and nothing else.
func (l *Library) List(context.Context) ([]kernel.Kernel, error) {
	names, err := l.store.Names()
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	var out []kernel.Kernel
	for _, name := range names {
		k, _, err := l.read(name)
		if errors.Is(err, fs.ErrNotExist) && !l.has(name) {
			continue // deleted meanwhile
		}
		if err != nil {
			k = kernel.Kernel{Name: name, Source: sourceDamaged}
		}
		out = append(out, k)
	}
	return out, nil
}

// Get returns a kernel that is there. It looks at the sizes of its files and
// at the kernel's header; what is damaged is named.
func (l *Library) Get(_ context.Context, name string) (kernel.Kernel, error) {
	k, files, err := l.read(name)
	if err == nil {
		err = l.check(k, files)
	}
	if err == nil {
		return k, nil
	}
	if !l.has(name) {
		return kernel.Kernel{}, l.unknown(name)
	}
	return kernel.Kernel{}, errkind.WithHint(fmt.Errorf("kernel %s: %w", name, err), mend(name))
}

// mend is the command that puts a damaged kernel right.
func mend(name string) string {
	if _, ok := pullable[name]; ok {
		return "banger kernel pull " + name
	}
	return "banger kernel delete " + name
}

func (l *Library) has(name string) bool {
	_, err := l.store.Current(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (l *Library) unknown(name string) error {
	if _, ok := pullable[name]; ok {
		return errkind.WithHint(errkind.New(errkind.NotFound, "kernel %q is not here yet", name), "banger kernel pull "+name)
	}
	names, _ := l.store.Names() // none is fine: they are to help
	names = append(names, slices.Sorted(maps.Keys(pullable))...)
	return errkind.WithHint(errkind.New(errkind.NotFound, "no kernel %q; the nearest is %q", name, errkind.Nearest(name, names)[0]), "banger kernel list")
}

// read returns what the manifest says.
func (l *Library) read(name string) (kernel.Kernel, []filestore.File, error) {
	id, err := l.store.Current(name)
	if err != nil {
		return kernel.Kernel{}, nil, err
	}
	var m manifest
	if err := l.store.ReadManifest(name, id, &m); err != nil {
		return kernel.Kernel{}, nil, err
	}
	dir := l.store.Dir(name, id)
	if m.Format != format || m.Name != name || m.ID != id || m.Version == "" {
		return kernel.Kernel{}, nil, fmt.Errorf("%s: manifest is of another kernel, or of another version of banger", dir)
	}
	k := kernel.Kernel{
		Name: name, Version: m.Version, ID: id, Source: m.Source, PackageVersion: m.PackageVersion,
		CreatedAt: m.CreatedAt, VMLinux: filepath.Join(dir, vmlinuxName),
	}
	for _, f := range m.Files {
		k.SizeBytes += f.SizeBytes
		if f.Name == modulesName {
			k.ModulesDisk = filepath.Join(dir, modulesName)
		}
	}
	for _, b := range m.BootModules {
		if !filepath.IsLocal(b) {
			return kernel.Kernel{}, nil, fmt.Errorf("%s: manifest names a module outside: %q", dir, b)
		}
		k.BootModules = append(k.BootModules, filepath.Join(dir, b))
	}
	return k, m.Files, nil
}

// check looks at a kernel's files.
func (l *Library) check(k kernel.Kernel, files []filestore.File) error {
	if err := l.store.CheckFiles(k.Name, k.ID, files); err != nil {
		return err
	}
	f, err := os.Open(k.VMLinux)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkELF(f, fi.Size()); err != nil {
		return fmt.Errorf("%s is damaged: %w", k.VMLinux, err)
	}
	return nil
}

// Ensure is Get, but pulls a kernel that can be pulled. What is damaged stays:
// only Pull replaces it.
func (l *Library) Ensure(ctx context.Context, name string, p kernel.Progress) (kernel.Kernel, error) {
	k, err := l.Get(ctx, name)
	if _, ok := pullable[name]; !ok || errkind.Of(err) != errkind.NotFound {
		return k, err
	}
	return l.pulls.Do(ctx, name, flight.Progress(p), func(ctx context.Context, p flight.Progress) (kernel.Kernel, error) {
		unlock, err := l.store.Lock(ctx, name)
		if err != nil {
			return kernel.Kernel{}, err
		}
		defer unlock()
		// Another process may have been quicker.
		if k, err := l.Get(ctx, name); errkind.Of(err) != errkind.NotFound {
			return k, err
		}
		return l.pull(ctx, name, p)
	})
}

// Pull fetches the newest version of a kernel, if that is not what is here,
// whole, already. A failed pull leaves nothing, and the version before in
// place.
func (l *Library) Pull(ctx context.Context, name string, p kernel.Progress) (kernel.Kernel, error) {
	if _, ok := pullable[name]; !ok {
		names := slices.Sorted(maps.Keys(pullable))
		return kernel.Kernel{}, errkind.WithHint(errkind.New(errkind.NotFound, "no kernel %q can be pulled; there is %q", name, names[0]), "banger kernel pull "+names[0])
	}
	return l.pulls.Do(ctx, name, flight.Progress(p), func(ctx context.Context, p flight.Progress) (kernel.Kernel, error) {
		unlock, err := l.store.Lock(ctx, name)
		if err != nil {
			return kernel.Kernel{}, err
		}
		defer unlock()
		return l.pull(ctx, name, p)
	})
}

// Delete removes every version of a kernel.
func (l *Library) Delete(ctx context.Context, name string) error {
	if !l.has(name) {
		return l.unknown(name)
	}
	unlock, err := l.store.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.store.DeleteAll(name); err != nil {
		return fmt.Errorf("delete kernel %s: %w", name, err)
	}
	return nil
}
