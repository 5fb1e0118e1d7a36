package boot

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/cavaliergopher/cpio"

	"banger/internal/guest/wire"
)

// writeBase writes the archive with what all machines of a kernel share.
func writeBase(ctx context.Context, f *os.File, agent string, modules []string) error {
	if len(modules) > MaxModules {
		return fmt.Errorf("%d modules are more than %d", len(modules), MaxModules)
	}
	a := cpio.NewWriter(f)
	if err := addFile(a, "init", agent, 0o755); err != nil {
		return err
	}
	if err := addDir(a, "mod"); err != nil {
		return err
	}
	for i, m := range modules {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := fmt.Sprintf("mod/%03d-%s", i, filepath.Base(m))
		if err := addFile(a, name, m, 0o600); err != nil {
			return err
		}
	}
	return finish(a, f)
}

// writeBundle writes the archive with the boot bundle. The kernel unpacks one
// archive after the other.
func writeBundle(f *os.File, bundle []byte) error {
	a := cpio.NewWriter(f)
	if err := addDir(a, path.Dir(wire.BundlePath)); err != nil {
		return err
	}
	err := a.WriteHeader(&cpio.Header{Name: wire.BundlePath, Mode: cpio.TypeReg | 0o600, Links: 1, Size: int64(len(bundle))})
	if err != nil {
		return err
	}
	if _, err := a.Write(bundle); err != nil {
		return err
	}
	return finish(a, f)
}

func addDir(a *cpio.Writer, name string) error {
	return a.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeDir | 0o700, Links: 2})
}

// addFile adds a file of the host.
func addFile(a *cpio.Writer, name, from string, perm cpio.FileMode) error {
	src, size, err := openRegular(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := a.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | perm, Links: 1, Size: size}); err != nil {
		return err
	}
	return copyExactly(a, src, size)
}

// finish ends an archive and pads it to 4 bytes: behind any other number the
// kernel does not find the next one ("invalid magic").
func finish(a *cpio.Writer, f *os.File) error {
	if err := a.Close(); err != nil {
		return err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, -at&3))
	return err
}
