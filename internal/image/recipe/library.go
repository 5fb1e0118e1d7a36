package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/filestore"
	"banger/internal/flight"
	"banger/internal/image"
)

// rootName is the file of a version that is the root file system.
const rootName = "root.ext4"

// sourceDamaged stands for the source of an image whose record cannot be read.
const sourceDamaged = "damaged"

// format of manifests and of what they tell of; another is not understood.
const format = 1

// defaultSize is how large a root is if nothing else is said: as large as a
// machine's root disk, so that nothing need grow at its first boot, and no
// guest writes tables that were zero anyway. It is sparse.
const defaultSize = 16 << 30

// Options are all optional.
type Options struct {
	Mirror    string           // of Debian; empty: the host's own apt configuration
	SizeBytes int64            // of a root, if its content takes no more; 0: 16 GiB
	Now       func() time.Time // nil: time.Now
}

// Library implements [image.Library] in a directory that several processes may
// use. Use [New] to get one.
type Library struct {
	store  *filestore.Store
	o      Options
	builds flight.Group[image.Image]

	// testOnlyFill, if not nil, stands for a build's packages.
	testOnlyFill func(ctx context.Context, dir string) ([]image.Package, error)
}

var _ image.Library = (*Library)(nil)

// New returns the library in dir, which is made if it is not there.
func New(dir string, o Options) (*Library, error) {
	store, err := filestore.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open image library: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SizeBytes == 0 {
		o.SizeBytes = defaultSize
	}
	return &Library{store: store, o: o}, nil
}

// began is a moment before which nothing of a build that begins now was
// written. File systems keep coarser time than clocks.
func (l *Library) began() time.Time { return time.Now().Add(-time.Second) }

// manifest is what is stored of an image.
type manifest struct {
	Format        int               `json:"format"`
	Name          string            `json:"name"`
	ID            string            `json:"id"`
	Source        string            `json:"source"`
	RecipeHash    string            `json:"recipe_hash"`
	Suite         string            `json:"suite"`
	UsedBytes     int64             `json:"used_bytes"`
	DefaultKernel string            `json:"default_kernel"`
	Init          string            `json:"init"`
	CreatedAt     time.Time         `json:"created_at"`
	Files         []filestore.File  `json:"files"`
	Packages      []manifestPackage `json:"packages"`
}

type manifestPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// List returns the current version of every image. One whose record cannot be
// read has a name and the source "damaged", and nothing else.
func (l *Library) List(context.Context) ([]image.Image, error) {
	names, err := l.store.Names()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []image.Image
	for _, name := range names {
		i, err := l.current(name)
		if errors.Is(err, fs.ErrNotExist) && !l.has(name) {
			continue // deleted meanwhile
		}
		if err != nil {
			i = image.Image{Name: name, Source: sourceDamaged}
		}
		out = append(out, i)
	}
	return out, nil
}

func (l *Library) current(name string) (image.Image, error) {
	id, err := l.store.Current(name)
	if err != nil {
		return image.Image{}, err
	}
	return l.read(name, id)
}

// Get returns the current version of an image that is there. It looks at the
// sizes of its files and at the file system's superblock; what is damaged is
// named.
func (l *Library) Get(_ context.Context, name string) (image.Image, error) {
	i, err := l.current(name)
	if err != nil {
		if !l.has(name) {
			return image.Image{}, l.unknown(name)
		}
		return image.Image{}, damaged(name, err)
	}
	return l.checked(i)
}

// Version returns one version, checked as by Get.
func (l *Library) Version(_ context.Context, name, id string) (image.Image, error) {
	ids, err := l.store.Versions(name)
	if err != nil {
		return image.Image{}, err
	}
	if !slices.Contains(ids, id) {
		return image.Image{}, errkind.New(errkind.NotFound, "image %s has no version %s any more", name, id)
	}
	i, err := l.read(name, id)
	if err != nil {
		return image.Image{}, damaged(name, err)
	}
	return l.checked(i)
}

// checked looks at an image's file.
func (l *Library) checked(i image.Image) (image.Image, error) {
	err := l.store.CheckFiles(i.Name, i.ID, []filestore.File{{Name: rootName, SizeBytes: i.SizeBytes}})
	if err == nil {
		_, err = ext4.Check(i.Root)
	}
	if err != nil {
		return image.Image{}, damaged(i.Name, err)
	}
	return i, nil
}

// damaged says what is wrong with an image, and how to mend it.
func damaged(name string, err error) error {
	hint := "banger image delete " + name
	if _, ok := known(name); ok {
		hint = "banger image build " + name
	}
	return errkind.WithHint(fmt.Errorf("image %s: %w", name, err), hint)
}

func (l *Library) has(name string) bool {
	_, err := l.store.Current(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (l *Library) unknown(name string) error {
	if _, ok := known(name); ok {
		return errkind.WithHint(errkind.New(errkind.NotFound, "image %q is not here yet", name), "banger image build "+name)
	}
	names, _ := l.store.Names() // none is fine: they are to help
	names = append(names, knownNames()...)
	return errkind.WithHint(errkind.New(errkind.NotFound, "no image %q; the nearest is %q", name, errkind.Nearest(name, names)[0]), "banger image list")
}

// read returns what a manifest says.
func (l *Library) read(name, id string) (image.Image, error) {
	var m manifest
	if err := l.store.ReadManifest(name, id, &m); err != nil {
		return image.Image{}, err
	}
	dir := l.store.Dir(name, id)
	if m.Format != format || m.Name != name || m.ID != id || len(m.Files) != 1 || m.Files[0].Name != rootName {
		return image.Image{}, fmt.Errorf("%s: manifest is of another image, or of another version of banger", dir)
	}
	i := image.Image{
		Name: name, ID: id, Root: filepath.Join(dir, rootName), Source: m.Source, RecipeHash: m.RecipeHash,
		SizeBytes: m.Files[0].SizeBytes, UsedBytes: m.UsedBytes, DefaultKernel: m.DefaultKernel, Init: m.Init, CreatedAt: m.CreatedAt,
	}
	for _, p := range m.Packages {
		i.Packages = append(i.Packages, image.Package(p))
	}
	return i, nil
}

// Ensure is Get, but builds an image of which a recipe is known. What is
// damaged stays: only Build replaces it.
func (l *Library) Ensure(ctx context.Context, name string, p image.Progress) (image.Image, error) {
	i, err := l.Get(ctx, name)
	text, ok := known(name)
	if !ok || errkind.Of(err) != errkind.NotFound {
		return i, err
	}
	r, err := Parse(text)
	if err != nil {
		return image.Image{}, err
	}
	return l.locked(ctx, name, name, p, l.once(name, r))
}

// once is a build that is not needed if somebody else, another process maybe,
// was quicker.
func (l *Library) once(name string, r Recipe) func(context.Context, flight.Progress) (image.Image, error) {
	return func(ctx context.Context, p flight.Progress) (image.Image, error) {
		if i, err := l.Get(ctx, name); errkind.Of(err) != errkind.NotFound {
			return i, err
		}
		return l.build(ctx, name, r, p)
	}
}

// Build builds an image anew. A failed build leaves nothing. Two at once of
// one recipe build once.
func (l *Library) Build(ctx context.Context, name string, recipe []byte, p image.Progress) (image.Image, error) {
	if err := filestore.CheckName(name); err != nil {
		return image.Image{}, err
	}
	if len(recipe) == 0 {
		text, ok := known(name)
		if !ok {
			names := knownNames()
			err := errkind.New(errkind.NotFound, "no recipe %q; the nearest is %q", name, errkind.Nearest(name, names)[0])
			return image.Image{}, errkind.WithHint(err, "banger image build "+errkind.Nearest(name, names)[0])
		}
		recipe = text
	}
	r, err := Parse(recipe)
	if err != nil {
		return image.Image{}, fmt.Errorf("build image %s: %w", name, err)
	}
	// A name has no dot: this is never the key of an Ensure, which may find
	// the image there and build nothing.
	return l.locked(ctx, name, name+"."+r.hash, p, func(ctx context.Context, p flight.Progress) (image.Image, error) {
		return l.build(ctx, name, r, p)
	})
}

// locked does work under the lock of name, once for all who ask for key.
func (l *Library) locked(ctx context.Context, name, key string, p image.Progress, work func(context.Context, flight.Progress) (image.Image, error)) (image.Image, error) {
	return l.builds.Do(ctx, key, flight.Progress(p), func(ctx context.Context, p flight.Progress) (image.Image, error) {
		unlock, err := l.store.Lock(ctx, name)
		if err != nil {
			return image.Image{}, err
		}
		defer unlock()
		return work(ctx, p)
	})
}

// Delete removes every version of an image.
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
		return fmt.Errorf("delete image %s: %w", name, err)
	}
	return nil
}

// Prune removes the versions that are neither current nor in keep. Images that
// are being built or deleted are left alone.
func (l *Library) Prune(_ context.Context, keep map[string]bool) error {
	names, err := l.store.Names()
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	var errs []error
	for _, name := range names {
		if err := l.prune(name, keep); err != nil {
			errs = append(errs, fmt.Errorf("prune image %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (l *Library) prune(name string, keep map[string]bool) error {
	unlock, ok, err := l.store.TryLock(name)
	if err != nil || !ok {
		return err
	}
	defer unlock()
	cur, err := l.store.Current(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	ids, err := l.store.Versions(name)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id != cur && !keep[id] {
			if err := l.store.Delete(name, id); err != nil {
				return err
			}
		}
	}
	return nil
}
