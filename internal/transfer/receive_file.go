package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// incoming is the file that is being received.
type incoming struct {
	place
	f     *os.File
	stage string // its name until it is whole
	size  int64  // negative: not known
	at    int64  // what there is of it
	mode  fs.FileMode
	mtime int64
}

// begin begins a file.
func (r *Receiver) begin(ctx context.Context, m *wire.CopyFile) error {
	p, err := r.place(m.GetName())
	if err != nil {
		return err
	}
	in := &incoming{place: p, size: m.GetSizeBytes(), at: m.GetOffset(), mode: r.mode(m.GetMode()), mtime: m.GetMtimeNs()}
	switch {
	case m.GetUnsized() && (in.size != 0 || in.at != 0):
		return invalid("%s: a size and none", p.path)
	case m.GetUnsized():
		in.size = -1
	case in.size < 0 || in.at < 0 || in.at > in.size:
		return invalid("%s: byte %d of %d", p.path, in.at, in.size)
	}
	if p.ours && in.size == int64(len(m.GetData())) && in.at == 0 {
		if done, err := r.write(in, m.GetData()); done || err != nil {
			return err
		}
	}
	if err := p.free(); err != nil {
		return err
	}
	if err := in.open(ctx); err != nil {
		if in.f != nil {
			err = errors.Join(err, in.discard())
		}
		return fail("write", p.path, err)
	}
	r.file = in
	if in.at > 0 {
		r.advance(p.path, in.at)
	}
	return r.data(m.GetData())
}

// write writes a small file into a directory that has not its own name yet
// either. Its time comes last: a copy that goes on sees by it whether the file
// is whole. It does nothing if something is at its place.
func (r *Receiver) write(in *incoming, data []byte) (done bool, err error) {
	f, err := in.root.OpenFile(in.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fail("write", in.path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(in.mode)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		t := atNano(in.mtime)
		err = in.root.Chtimes(in.name, t, t)
	}
	if err != nil {
		return false, fail("write", in.path, err)
	}
	r.advance(in.path, int64(len(data)))
	return true, nil
}

// data takes the next bytes of the file.
func (r *Receiver) data(b []byte) error {
	in := r.file
	if in == nil {
		return invalid("bytes of no file")
	}
	if err := in.within(int64(len(b))); err != nil {
		return err
	}
	if _, err := in.f.Write(b); err != nil {
		return fail("write", in.path, err)
	}
	return r.took(int64(len(b)))
}

// hole takes n bytes that are zero.
func (r *Receiver) hole(n int64) error {
	in := r.file
	if in == nil {
		return invalid("bytes of no file")
	}
	if in.size < 0 {
		return invalid("%s: a hole in a stream", in.path)
	}
	if err := in.within(n); err != nil {
		return err
	}
	if _, err := in.f.Seek(n, io.SeekCurrent); err != nil {
		return fail("write", in.path, err)
	}
	return r.took(n)
}

// within checks that n more bytes are within the size that was declared.
func (in *incoming) within(n int64) error {
	if n < 0 || in.size >= 0 && n > in.size-in.at || n > math.MaxInt64-in.at {
		return invalid("%s is longer than its %d bytes", in.path, in.size)
	}
	return nil
}

// took counts bytes, and puts a file that is whole by them in its place.
func (r *Receiver) took(n int64) error {
	in := r.file
	in.at += n
	r.advance(in.path, n)
	if in.at != in.size {
		return nil
	}
	return r.commit()
}

// end ends a file of no known size.
func (r *Receiver) end() error {
	if r.file == nil || r.file.size >= 0 {
		return invalid("the end of no stream")
	}
	return r.commit()
}

// commit puts the file, which is whole, in its place. It stays locked until it
// is there, so that nobody else writes under the name that is renamed.
func (r *Receiver) commit() error {
	in := r.file
	if err := in.f.Truncate(in.at); err != nil { // it may end in a hole
		return fail("write", in.path, err)
	}
	if err := in.f.Chmod(in.mode); err != nil {
		return fail("set the mode of", in.path, err)
	}
	t := atNano(in.mtime)
	if err := in.root.Chtimes(in.stage, t, t); err != nil {
		return fail("set the time of", in.path, err)
	}
	switch {
	case !r.o.Sync || in.ours:
	case len(r.levels) > 1:
		in.dirty = true
	default:
		if err := in.f.Sync(); err != nil {
			return fail("sync", in.path, err)
		}
	}
	if err := in.root.Rename(in.stage, in.name); err != nil {
		return fail("write", in.path, err)
	}
	r.file = nil
	return fail("write", in.path, in.f.Close())
}

// discard leaves nothing of the file.
func (in *incoming) discard() error {
	return errors.Join(ignoreNone(in.root.Remove(in.stage)), in.f.Close())
}

// keep leaves what there is of the file to a later copy, if that can make use
// of it.
func (in *incoming) keep() error {
	if in.size < 0 || in.at == 0 {
		return in.discard()
	}
	return in.f.Close()
}
