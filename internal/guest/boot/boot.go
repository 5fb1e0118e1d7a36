// Package boot writes what one machine's kernel boots with: an initramfs with
// the agent as its first process, the kernel modules that the agent needs to
// find the machine's disks, and the machine's boot bundle.
//
//	init                  the agent, a static program
//	mod/000-NAME.ko …     the modules, in the order of loading
//	banger/bundle.json    the boot bundle, in a cpio archive of its own
//
// It is not compressed: in software emulation a guest unpacks 9 MB as they are
// in 140 ms and gzipped in 230 ms or more, and the host copies them from its
// page cache in about 10 ms. Nothing is kept from one call to the next, so
// nothing can be out of date.
package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
)

// MaxModules is how many modules an initramfs may hold; their numbers have
// three digits.
const MaxModules = 1000

// maxFile bounds one file of an initramfs, in bytes: it is memory of the
// guest, and far more than an agent or module ever was.
const maxFile = 256 << 20

// Options are what every machine's initramfs has in common.
type Options struct {
	// Agent is the path of the program banger-agent. Required.
	Agent string
}

// Boot writes initramfs files. Its methods may be called concurrently.
type Boot struct {
	agent string

	mu  sync.Mutex
	id  string      // of the agent as it was when it was read; guarded by mu
	was os.FileInfo // guarded by mu
}

var _ guest.Boot = (*Boot)(nil)

// New returns a Boot. It fails if the agent is not there; the error is of kind
// [errkind.Host].
func New(o Options) (*Boot, error) {
	fi, err := os.Stat(o.Agent)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", o.Agent)
	}
	if err != nil {
		return nil, errkind.Wrap(errkind.Host, fmt.Errorf("find banger-agent: %w", err))
	}
	return &Boot{agent: o.Agent}, nil
}

// AgentID is a SHA-256 of the agent. It is read anew when its file is another.
func (b *Boot) AgentID() (string, error) {
	f, err := os.Open(b.agent)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.was != nil && os.SameFile(b.was, fi) && b.was.ModTime().Equal(fi.ModTime()) && b.was.Size() == fi.Size() {
		return b.id, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", b.agent, err)
	}
	b.id, b.was = hex.EncodeToString(h.Sum(nil)), fi
	return b.id, nil
}

// Write writes the initramfs of one machine to path, readable by uid alone. It
// replaces what was there in one step; on an error that stays and nothing else
// is left. It is not synced: a machine does not outlive a crash of the host,
// and its next start writes the file again.
func (b *Boot) Write(ctx context.Context, path string, modules []string, bundle wire.Bundle, uid uint32) (err error) {
	data, err := bundle.Encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write initramfs: %w", errors.Join(err, f.Close(), os.Remove(f.Name())))
		}
	}()
	if err := writeBase(ctx, f, b.agent, modules); err != nil {
		return err
	}
	if err := writeBundle(f, data); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := chown(f, uid); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return f.Close()
}

// chown gives the file to a machine's user, unless it has it: who is not root
// may run machines as himself.
func chown(f *os.File, uid uint32) error {
	if uid == uint32(os.Geteuid()) && uid == uint32(os.Getegid()) {
		return nil
	}
	return f.Chown(int(uid), int(uid))
}

// Remove removes what Write wrote, or whatever was planted in its place, also
// what a Write that died left behind. It succeeds if there is nothing.
func (b *Boot) Remove(path string) error {
	var errs []error
	// A VMM that was broken into may have left a directory there.
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, unix.ENOTDIR) {
		errs = append(errs, err)
	}
	stale, err := filepath.Glob(filepath.Join(escape(filepath.Dir(path)), "."+escape(filepath.Base(path))+".*.tmp"))
	errs = append(errs, err)
	for _, name := range stale {
		errs = append(errs, remove(name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove initramfs: %w", err)
	}
	return nil
}

func remove(name string) error {
	if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// escape makes a pattern for [filepath.Glob] that matches name alone.
func escape(name string) string {
	var out []byte
	for _, c := range []byte(name) {
		switch c {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return string(out)
}

// openRegular opens a file that goes into an initramfs.
func openRegular(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() == 0 || fi.Size() > maxFile) {
		err = fmt.Errorf("%s is no regular file of 1 to %d bytes", name, maxFile)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

// copyBuffer is how much is copied at a time, in bytes: large, since each turn
// costs two system calls.
const copyBuffer = 1 << 20

// copyExactly copies size bytes. A file that has become shorter is an error.
func copyExactly(dst io.Writer, src *os.File, size int64) error {
	buf := make([]byte, min(size, copyBuffer))
	// Only its Read: File.WriteTo would copy by a smaller buffer of its own.
	n, err := io.CopyBuffer(dst, struct{ io.Reader }{io.LimitReader(src, size)}, buf)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %w", src.Name(), io.ErrUnexpectedEOF)
	}
	return err
}
