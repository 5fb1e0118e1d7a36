// Package qcow2 makes writable layers as QEMU's overlay files: one sparse file
// for each machine, which holds what the guest wrote over the image.
//
// QEMU opens the file itself, so attaching takes nothing of the host. The file
// is made in process: starting qemu-img takes longer than everything else.
package qcow2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/disk"
	"banger/internal/plainfile"
)

const (
	fileName = "root.qcow2"
	staging  = ".root.qcow2.*.tmp"
)

// Layers is the [disk.Layers] of QEMU machines. The zero value is ready.
type Layers struct{}

var _ disk.Layers = Layers{}

// Check finds nothing missing anywhere: files are all it takes.
func (Layers) Check(context.Context) error { return nil }

// Path is the overlay file.
func (Layers) Path(l disk.Layer) string { return filepath.Join(l.Dir, fileName) }

// Create makes an overlay file, owned by l.UID, mode 0600.
func (ls Layers) Create(ctx context.Context, l disk.Layer) error {
	if err := ls.create(ctx, l); err != nil {
		return fmt.Errorf("create root disk: %w", err)
	}
	return nil
}

func (ls Layers) create(ctx context.Context, l disk.Layer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	path := ls.Path(l)
	_, err := os.Lstat(path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h, err := overlay(l)
	if err != nil {
		return err
	}
	blocks, length, err := h.encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(l.Dir, staging)
	if err != nil {
		return err
	}
	err = errors.Join(fill(f, blocks, length, int(l.UID)), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// overlay is the header of a new layer. One over a template's is as large as that,
// for the guest knows its size.
func overlay(l disk.Layer) (header, error) {
	size, err := baseSize(l.Base)
	if err != nil || l.Template == "" {
		return header{size: max(l.SizeBytes, size), base: l.Base}, err
	}
	below, err := readHeader(l.Template)
	if err == nil {
		err = below.check(l.Base)
	}
	if err != nil {
		return header{}, fmt.Errorf("template's layer %s: %w", l.Template, err)
	}
	return header{size: below.size, base: l.Template, over: true}, nil
}

// fill makes the staged file durable before it gets its name: after a crash of
// the host the layer is whole, or not there and made anew. Its name need not
// be durable, for a guest's first flush makes it so. That takes 1 to 4 ms.
func fill(f *os.File, blocks map[int64][]byte, length int64, uid int) error {
	if err := f.Truncate(length); err != nil {
		return err
	}
	for at, data := range blocks {
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
	}
	if err := f.Chown(uid, uid); err != nil { // its mode is 0600 already
		return err
	}
	return f.Sync()
}

// baseSize returns the size of the image below, which must be a file that can
// be one.
func baseSize(path string) (int64, error) {
	if !filepath.IsAbs(path) {
		return 0, fmt.Errorf("image %q: its path is not absolute", path)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 || fi.Size()%512 != 0 {
		return 0, fmt.Errorf("image %s: no raw disk (%v, %d bytes)", path, fi.Mode(), fi.Size())
	}
	return fi.Size(), nil
}

// Attach checks the overlay and names it; it makes nothing.
func (ls Layers) Attach(ctx context.Context, l disk.Layer) (disk.Device, error) {
	if ctx.Err() != nil {
		return disk.Device{}, context.Cause(ctx)
	}
	path := ls.Path(l)
	below, err := overlay(l)
	if err == nil {
		err = checkOverlay(path, below.base)
	}
	if err != nil {
		return disk.Device{}, fmt.Errorf("attach root disk %s: %w", path, err)
	}
	d := disk.Device{Path: path, Format: "qcow2", Backing: []string{l.Base}}
	if l.Template != "" {
		d.Backing = []string{l.Template, l.Base}
	}
	return d, nil
}

// checkOverlay reports an overlay that cannot be one over base. It stands in a
// directory of the VMM's user, who may have put anything there.
func checkOverlay(path, base string) error {
	h, err := readHeader(path)
	if err != nil {
		return err
	}
	return h.check(base)
}

// readHeader reads the header of an overlay.
func readHeader(path string) (header, error) {
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return header{}, err
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, err
	}
	return decode(b[:n])
}

// check reports that the overlay stands on something else than base.
func (h header) check(base string) error {
	if h.base != base {
		return fmt.Errorf("it stands on %q, not on %q", h.base, base)
	}
	return nil
}

// Detach has nothing to undo.
func (Layers) Detach(context.Context, disk.Layer) error { return nil }

// Delete removes the overlay, or whatever was planted in its place, and what a
// crash left of making it.
func (ls Layers) Delete(_ context.Context, l disk.Layer) error {
	paths, err := filepath.Glob(filepath.Join(escapeGlob(l.Dir), staging))
	if err != nil {
		return fmt.Errorf("delete root disk: %w", err)
	}
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("delete root disk: %w", err))
		}
	}
	// A VMM that was broken into may have left a directory there.
	if err := os.RemoveAll(ls.Path(l)); err != nil {
		errs = append(errs, fmt.Errorf("delete root disk: %w", err))
	}
	return errors.Join(errs...)
}

// escapeGlob makes a path stand for itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}
