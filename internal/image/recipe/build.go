package recipe

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/apt"
	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/filestore"
	"banger/internal/flight"
	"banger/internal/hostcmd"
	"banger/internal/image"
)

// aptConfig is where the host keeps its sources.
const aptConfig = "/etc/apt"

// build is an image being made.
type build struct {
	*filestore.Stage
	l       *Library
	name    string
	r       Recipe
	sources []apt.Source
	p       flight.Progress
}

func (b *build) progress(detail string, done, total int64) {
	b.p("build image "+b.name, detail, done, total)
}

// build builds an image and makes it the current version of name.
// Preconditions: the caller holds the lock of name.
func (l *Library) build(ctx context.Context, name string, r Recipe, p flight.Progress) (_ image.Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("build image %s: %w", name, err)
		}
	}()
	g, err := l.store.Stage(name)
	if err != nil {
		return image.Image{}, err
	}
	defer func() { err = errors.Join(err, g.Discard()) }()
	b := &build{Stage: g, l: l, name: name, r: r, p: p}
	id, err := newID()
	if err != nil {
		return image.Image{}, err
	}
	pkgs, err := b.makeTree(ctx)
	if err != nil {
		return image.Image{}, err
	}
	b.progress("making the file system", 0, 0)
	if err := b.makeRoot(ctx, id); err != nil {
		return image.Image{}, err
	}
	if err := b.writeManifest(id, pkgs); err != nil {
		return image.Image{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return image.Image{}, err
	}
	if err := g.Commit(id); err != nil {
		return image.Image{}, err
	}
	return l.Version(ctx, name, id)
}

func (l *Library) findSources(r Recipe) ([]apt.Source, error) {
	if _, err := hostcmd.Look("apt-get"); err != nil {
		return nil, fmt.Errorf("recipes are of Debian's packages, which takes apt: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errkind.New(errkind.Host, "only root may build images")
	}
	host, err := apt.HostSources(aptConfig)
	if err != nil {
		return nil, err
	}
	return apt.Resolve(host, r.Suite, r.Components, l.o.Mirror)
}

// newID is a name for a version: no two builds are the same.
func newID() (string, error) {
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// fill makes dir a tree of the recipe's packages, which it returns.
func (b *build) fill(ctx context.Context, dir string) ([]image.Package, error) {
	var err error
	if b.sources, err = b.l.findSources(b.r); err != nil {
		return nil, err
	}
	if b.r.Method == methodExtract {
		return b.extract(ctx, dir)
	}
	return b.install(ctx, dir)
}

func (b *build) treeDir() string { return filepath.Join(b.Tmp, "root") }

// makeTree makes the image's root as a directory.
func (b *build) makeTree(ctx context.Context) ([]image.Package, error) {
	began := b.l.began()
	fill := b.fill
	if b.l.testOnlyFill != nil {
		fill = b.l.testOnlyFill
	}
	pkgs, err := fill(ctx, b.treeDir())
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(b.treeDir())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := tree{root}
	if err := t.apply(ctx, b.r, b.sources); err != nil {
		return nil, err
	}
	return pkgs, t.settle(ctx, began)
}

// rootSlack is room that every image has beyond its content, in bytes.
const rootSlack = 64 << 20

// makeRoot makes a file system of the tree, and removes that.
func (b *build) makeRoot(ctx context.Context, id string) error {
	size, err := ext4.Fit(b.treeDir(), rootSlack)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte("image " + id))
	err = ext4.Make(ctx, filepath.Join(b.Dir, rootName), ext4.Options{
		SizeBytes: max(size, b.l.o.SizeBytes/block*block),
		From:      b.treeDir(), Label: "root", UUID: ext4.UUID(sum), Unix: epoch.Unix(),
	})
	return errors.Join(err, os.RemoveAll(b.treeDir()))
}

// block is what the size of a root is a multiple of, in bytes.
const block = 4096

func (b *build) writeManifest(id string, pkgs []image.Package) error {
	files, err := b.Files()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.Dir, rootName), &st); err != nil {
		return err
	}
	m := manifest{
		Format: format, Name: b.name, ID: id, Source: "recipe", RecipeHash: b.r.hash, Suite: b.r.Suite,
		UsedBytes: st.Blocks * 512, DefaultKernel: b.r.Kernel, Init: b.r.Init,
		CreatedAt: b.l.o.Now().UTC(), Files: files, Packages: []manifestPackage{},
	}
	for _, p := range pkgs {
		m.Packages = append(m.Packages, manifestPackage(p))
	}
	return b.WriteManifest(m)
}
