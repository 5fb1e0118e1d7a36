package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"banger/internal/errkind"
	"banger/internal/filestore"
	"banger/internal/kernel"
)

// maxImage is how large an image that is imported may be, in bytes.
const maxImage = 1 << 30

// Import takes a kernel image (bzImage or ELF) and a tar of its
// lib/modules/<version>, modules compressed or not; nil or empty is a kernel
// with everything built in. What makes no sense is an error of kind
// [errkind.Usage], and leaves nothing.
func (l *Library) Import(ctx context.Context, name string, image, modules io.Reader, p kernel.Progress) (_ kernel.Kernel, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("import kernel %s: %w", name, err)
		}
	}()
	if err := filestore.CheckName(name); err != nil {
		return kernel.Kernel{}, err
	}
	unlock, err := l.store.Lock(ctx, name)
	if err != nil {
		return kernel.Kernel{}, err
	}
	defer unlock()
	b, err := l.begin(name, "import")
	if err != nil {
		return kernel.Kernel{}, err
	}
	defer func() { err = errors.Join(err, b.Discard()) }()
	p("import kernel "+name, "kernel image", 0, 0)
	sum := sha256.New()
	file := filepath.Join(b.Tmp, "image")
	err = writeFile(file, io.TeeReader(reader{ctx, image}, sum), maxImage)
	if errors.Is(err, errTooLarge) {
		err = errkind.New(errkind.Usage, "the kernel image is over %d bytes", int64(maxImage))
	}
	if err != nil {
		return kernel.Kernel{}, err
	}
	if err := b.setKernelFile(file); err != nil {
		return kernel.Kernel{}, err
	}
	if modules != nil {
		p("import kernel "+name, "modules", 0, 0)
		if err := b.importModules(ctx, io.TeeReader(reader{ctx, modules}, sum)); err != nil {
			return kernel.Kernel{}, err
		}
	}
	return b.commit(ctx, sum.Sum(nil))
}

func (b *build) importModules(ctx context.Context, r io.Reader) error {
	var first [1]byte
	if n, err := io.ReadFull(r, first[:]); n == 0 && errors.Is(err, io.EOF) {
		return nil // none
	} else if err != nil {
		return err
	}
	root, err := b.openModules()
	if err != nil {
		return err
	}
	defer root.Close()
	n, err := unpackModules(io.MultiReader(bytes.NewReader(first[:]), r), root, b.m.Version, nil)
	if err != nil {
		return err
	}
	if n == 0 {
		return errkind.New(errkind.Usage, "the tar of modules holds no lib/modules/%s, which is the version of the kernel image", b.m.Version)
	}
	return b.finishModules(ctx, root)
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
