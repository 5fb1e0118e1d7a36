package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"banger/internal/errkind"
	"banger/internal/ext4"
	"banger/internal/filestore"
	"banger/internal/hostcmd"
	"banger/internal/kernel"
)

// moduleSlack is room on a disk of modules beyond what is in it, in bytes; it
// costs nothing, the file is sparse.
const moduleSlack = 4 << 20

// build is a kernel being made.
type build struct {
	*filestore.Stage
	l *Library
	m manifest
}

// begin begins a version of name.
// Preconditions: the caller holds the lock of name.
func (l *Library) begin(name, source string) (*build, error) {
	g, err := l.store.Stage(name)
	if err != nil {
		return nil, err
	}
	return &build{Stage: g, l: l, m: manifest{Format: format, Name: name, Source: source, CreatedAt: l.o.Now().UTC(), BootModules: []string{}}}, nil
}

// modulesDir is where the modules are unpacked. It is as depmod expects them
// below moduleBase, wherever the host's depmod looks.
func (b *build) modulesDir() string {
	return filepath.Join(b.moduleBase(), "usr/lib/modules", b.m.Version)
}

func (b *build) moduleBase() string { return filepath.Join(b.Tmp, "modules") }

// openModules makes the directory for the modules.
// Preconditions: the version is known.
func (b *build) openModules() (*os.Root, error) {
	if err := os.MkdirAll(b.modulesDir(), 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink("usr/lib", filepath.Join(b.moduleBase(), "lib")); err != nil {
		return nil, err
	}
	return os.OpenRoot(b.modulesDir())
}

// setKernel takes the kernel from image, a bzImage or an ELF file.
func (b *build) setKernel(image io.ReaderAt, size int64) error {
	f, err := os.OpenFile(filepath.Join(b.Dir, vmlinuxName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unpackKernel(&limitWriter{w: f, left: maxKernel}, image, size); err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkELF(f, fi.Size()); err != nil {
		return errkind.New(errkind.Usage, "kernel image: %w", err)
	}
	b.m.Version, err = findVersion(f.Name())
	return err
}

// finishModules makes of the unpacked modules what a guest needs of them.
func (b *build) finishModules(ctx context.Context, root *os.Root) error {
	_, err := hostcmd.Cmd{Argv: []string{"depmod", "-b", b.moduleBase(), b.m.Version}, Tied: true}.Run(ctx)
	if errkind.Of(err) == errkind.Host {
		return errkind.WithHint(err, "apt-get install -y kmod")
	}
	if err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	m, err := readModules(root)
	if err != nil {
		return err
	}
	order, err := m.bootOrder()
	if err != nil {
		return err
	}
	if err := b.copyBootModules(root, order); err != nil {
		return err
	}
	return b.makeDisk(ctx)
}

func (b *build) copyBootModules(root *os.Root, order []string) error {
	if err := os.Mkdir(filepath.Join(b.Dir, bootDir), 0o755); err != nil {
		return err
	}
	for _, file := range order {
		name := path.Join(bootDir, modName(file)+".ko")
		if err := copyFile(filepath.Join(b.Dir, name), root, file); err != nil {
			return err
		}
		b.m.BootModules = append(b.m.BootModules, name)
	}
	return nil
}

func copyFile(to string, root *os.Root, from string) error {
	src, err := root.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// makeDisk makes the file system of all modules.
func (b *build) makeDisk(ctx context.Context) error {
	dir := b.modulesDir()
	if err := settleTree(dir); err != nil {
		return err
	}
	size, err := ext4.Fit(dir, moduleSlack)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte("modules " + b.m.Version))
	return ext4.Make(ctx, filepath.Join(b.Dir, modulesName), ext4.Options{
		SizeBytes: size, From: dir, Label: "modules", UUID: ext4.UUID(sum), ReadOnly: true, Unix: treeTime.Unix(),
	})
}

// treeTime is when all files on a disk of modules changed last, so that two
// disks of the same modules are alike.
var treeTime = time.Unix(1_000_000_000, 0)

// settleTree gives a tree the modes and times that its guests see.
func settleTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		perm := fs.FileMode(0o644)
		if d.IsDir() {
			perm = 0o755
		}
		return errors.Join(os.Chmod(name, perm), os.Chtimes(name, treeTime, treeTime))
	})
}

// commit makes what was made the current version, of which content tells what
// it was made of, and removes all but the one before: a machine that is being
// started may have been told of it.
func (b *build) commit(ctx context.Context, content []byte) (kernel.Kernel, error) {
	sum := sha256.Sum256(content)
	b.m.ID = hex.EncodeToString(sum[:6])
	var err error
	if b.m.Files, err = b.Files(); err != nil {
		return kernel.Kernel{}, err
	}
	if err := b.WriteManifest(b.m); err != nil {
		return kernel.Kernel{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return kernel.Kernel{}, err
	}
	name := b.m.Name
	before, err := b.l.store.Current(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		before = "" // damaged; replaced
	}
	if err := b.Commit(b.m.ID); err != nil {
		return kernel.Kernel{}, err
	}
	if err := b.l.store.Keep(name, b.m.ID, before); err != nil {
		return kernel.Kernel{}, err
	}
	return b.l.Get(ctx, name)
}
