package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/apt"
	"banger/internal/errkind"
	"banger/internal/flight"
	"banger/internal/hostcmd"
	"banger/internal/kernel"
)

// aptConfig is where the host keeps its sources.
const aptConfig = "/etc/apt"

// origin is where a kernel that can be pulled comes from.
type origin struct {
	suite      string
	components []string
	pkg        string // depends on the package that holds the kernel
}

// imagePrefix begins the names of packages that hold a kernel; what follows is
// its version.
const imagePrefix = "linux-image-"

// pullable are the kernels that Pull knows.
var pullable = map[string]origin{
	"debian-cloud": {"bookworm", []string{"main"}, imagePrefix + "cloud-" + apt.Architecture},
}

// pull fetches the newest version of a kernel that can be pulled.
// Preconditions: the caller holds the lock of name.
func (l *Library) pull(ctx context.Context, name string, p flight.Progress) (_ kernel.Kernel, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pull kernel %s: %w", name, err)
		}
	}()
	b, err := l.begin(name, "debian")
	if err != nil {
		return kernel.Kernel{}, err
	}
	defer func() { err = errors.Join(err, b.Discard()) }()
	stage := "pull kernel " + name
	p(stage, "reading package lists", 0, 0)
	a, pkg, err := l.find(ctx, filepath.Join(b.Tmp, "apt"), pullable[name])
	if err != nil {
		return kernel.Kernel{}, err
	}
	if k, err := l.Get(ctx, name); err == nil && k.PackageVersion == pkg.Version && "linux-image-"+k.Version == pkg.Name {
		return k, nil
	}
	b.m.Version, b.m.PackageVersion = strings.TrimPrefix(pkg.Name, imagePrefix), pkg.Version
	p(stage, fmt.Sprintf("downloading %s (%d MB)", pkg.Name, pkg.SizeBytes/1e6), 0, 0)
	deb, err := a.Download(ctx, pkg, b.Tmp)
	if err != nil {
		return kernel.Kernel{}, err
	}
	p(stage, "unpacking", 0, 0)
	if err := b.unpackPackage(ctx, deb); err != nil {
		return kernel.Kernel{}, err
	}
	return b.commit(ctx, fmt.Appendf(nil, "%d %s %s", format, pkg.Name, pkg.Version))
}

// find returns the newest package that holds the kernel of o, and an apt with
// a state in dir that can download it.
func (l *Library) find(ctx context.Context, dir string, o origin) (*apt.Apt, apt.Package, error) {
	host, err := apt.HostSources(aptConfig)
	if err != nil {
		return nil, apt.Package{}, err
	}
	if _, err := hostcmd.Look("apt-get"); err != nil {
		err := fmt.Errorf("read Debian's archive with apt: %w", err)
		return nil, apt.Package{}, errkind.WithHint(err, "banger kernel import --help")
	}
	sources, err := apt.Resolve(host, o.suite, o.components, l.o.Mirror)
	if err != nil {
		return nil, apt.Package{}, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, apt.Package{}, err
	}
	a, err := apt.New(ctx, dir, sources)
	if err != nil {
		return nil, apt.Package{}, err
	}
	if err := a.Update(ctx); err != nil {
		return nil, apt.Package{}, err
	}
	meta, err := a.Show(ctx, o.pkg)
	if err != nil {
		return nil, apt.Package{}, err
	}
	for _, d := range meta.Depends {
		if strings.HasPrefix(d, imagePrefix) {
			pkg, err := a.Show(ctx, d)
			return a, pkg, err
		}
	}
	return nil, apt.Package{}, fmt.Errorf("package %s depends on no kernel", o.pkg)
}

// unpackPackage takes kernel and modules from a package.
func (b *build) unpackPackage(ctx context.Context, deb string) error {
	root, err := b.openModules()
	if err != nil {
		return err
	}
	defer root.Close()
	image := filepath.Join(b.Tmp, "image")
	if err := b.readPackage(ctx, deb, root, image); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	want := b.m.Version
	if err := b.setKernelFile(image); err != nil {
		return err
	}
	if b.m.Version != want {
		return fmt.Errorf("package of kernel %s holds kernel %s", want, b.m.Version)
	}
	return b.finishModules(ctx, root)
}

func (b *build) setKernelFile(image string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return b.setKernel(f, fi.Size())
}

// readPackage writes a package's kernel image to a file and its modules to
// root.
func (b *build) readPackage(ctx context.Context, deb string, root *os.Root, image string) error {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := hostcmd.Cmd{Argv: []string{"dpkg-deb", "--fsys-tarfile", deb}, Stdout: pw, Tied: true}.Run(ctx)
		pw.CloseWithError(err)
		done <- err
	}()
	found := false
	_, err := unpackModules(pr, root, b.m.Version, func(name string, r io.Reader) error {
		if name != "boot/vmlinuz-"+b.m.Version {
			return nil
		}
		found = true
		return writeFile(image, r, maxKernel)
	})
	if err == nil && !found {
		err = errors.New("there is no kernel in it")
	}
	pr.CloseWithError(errors.New("not read to its end"))
	return errors.Join(err, <-done)
}

// writeFile writes what r holds, at most limit bytes, to a new file.
func writeFile(name string, r io.Reader, limit int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(&limitWriter{w: f, left: limit}, r)
	return errors.Join(err, f.Close())
}
