package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// An Out is the way to the receiving end. Its errors mean that the stream is
// broken, and come out of [Send] as they are.
type Out interface {
	Send(*wire.CopyItem) error
	// Have waits for the answer to the last offer.
	Have() (*wire.CopyHave, error)
}

// SendOptions are what may be left out of a [Send].
type SendOptions struct {
	Resume bool // ask what the other end has, and send the rest
	// Progress is told what is being sent, and how many bytes of how many
	// have been. May be nil.
	Progress func(path string, done, total int64)
	// Skipped is told what is not sent, and why not. May be nil.
	Skipped func(path, why string)
}

// Send sends files and directories with all that is in them. A source that is
// a link is what it leads to. If something cannot be read, the other end is
// told to give up, and the error says what; something that has gone by the
// time its turn comes is passed over.
func Send(ctx context.Context, out Out, sources []string, o SendOptions) error {
	s := &sender{ctx: ctx, out: out, o: o, buf: make([]byte, chunk)}
	return s.finish(s.all(sources))
}

// SendStream sends what r holds as one file of no known size.
func SendStream(ctx context.Context, out Out, r io.Reader, o SendOptions) error {
	s := &sender{ctx: ctx, out: out, o: o, buf: make([]byte, chunk)}
	return s.finish(s.stream(r))
}

type sender struct {
	ctx   context.Context
	out   Out
	o     SendOptions
	buf   []byte // of a chunk
	depth int
	done  int64 // bytes
	total wire.CopyTotal
}

// outError is one of the stream, of which the other end cannot be told.
type outError struct{ error }

func (e outError) Unwrap() error { return e.error }

func (s *sender) send(it *wire.CopyItem) error {
	if err := s.ctx.Err(); err != nil {
		return outError{err}
	}
	if err := s.out.Send(it); err != nil {
		return outError{err}
	}
	return nil
}

// finish tells the other end how it ended.
func (s *sender) finish(err error) error {
	if err == nil {
		err = s.send(doneItem())
	}
	var oe outError
	if errors.As(err, &oe) {
		return oe.error
	}
	if err != nil {
		_ = s.send(abortItem()) // an end that has gone has given up by itself
	}
	return err
}

func (s *sender) all(sources []string) error {
	for _, path := range sources {
		if err := s.sum(path); err != nil {
			return err
		}
	}
	total := &wire.CopyTotal{Bytes: s.total.Bytes, Entries: s.total.Entries}
	if err := s.send(&wire.CopyItem{Msg: &wire.CopyItem_Total{Total: total}}); err != nil {
		return err
	}
	for _, path := range sources {
		if err := s.source(path); err != nil {
			return err
		}
	}
	return nil
}

// look tells what a source is; d is open if it is a directory, else nil.
func look(path string) (fi fs.FileInfo, d *os.Root, err error) {
	fi, err = os.Stat(path)
	switch {
	case err != nil:
	case fi.IsDir():
		d, err = os.OpenRoot(path)
	case !fi.Mode().IsRegular():
		err = ErrKind
	}
	return fi, d, fail("read", path, err)
}

func (s *sender) source(path string) error {
	fi, d, err := look(path)
	if err != nil {
		return err
	}
	if d == nil {
		return s.topFile(path, fi)
	}
	defer d.Close()
	return s.dir(d, "", filepath.Clean(path), fi)
}

func (s *sender) topFile(path string, fi fs.FileInfo) error {
	have, err := s.offer([]fs.FileInfo{fi}, []string{""})
	if err != nil {
		return err
	}
	return s.file(source{
		path: path, part: have[""],
		open: func() (*os.File, error) { return os.OpenFile(path, openFlags, 0) },
	})
}

// openFlags open a file without waiting, whatever has become of it since it
// was looked at.
const openFlags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY

// dir sends a directory: the source itself, or the one at name in a directory
// that is being sent.
func (s *sender) dir(d *os.Root, name, path string, fi fs.FileInfo) error {
	if s.depth++; s.depth > maxDepth {
		return fail("read", path, errDepth)
	}
	defer func() { s.depth-- }()
	names, err := list(d)
	if err != nil {
		return fail("read", path, err)
	}
	it := &wire.CopyDir{Name: []byte(name), Mode: unixMode(fi.Mode()), MtimeNs: mtime(fi)}
	if err := s.send(&wire.CopyItem{Msg: &wire.CopyItem_Dir{Dir: it}}); err != nil {
		return err
	}
	for names := range slices.Chunk(names, maxOffer) {
		if err := s.entries(d, path, names); err != nil {
			return err
		}
	}
	return s.send(leaveItem())
}

var errDepth = errors.New("it is too deep in its tree")

// entries sends some of a directory's entries.
func (s *sender) entries(d *os.Root, path string, names []string) error {
	infos := make([]fs.FileInfo, len(names))
	for i, name := range names {
		fi, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fail("read", join(path, name), err)
		}
		infos[i] = fi
	}
	have, err := s.offer(infos, names)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := s.entry(d, name, join(path, name), infos[i], have[name]); err != nil {
			return err
		}
	}
	return nil
}

// offer asks what the other end has of the regular files among infos: the
// offset of each is how much.
func (s *sender) offer(infos []fs.FileInfo, names []string) (have map[string]*wire.CopyFile, err error) {
	if !s.o.Resume {
		return nil, nil
	}
	offer := &wire.CopyOffer{}
	for i, fi := range infos {
		if fi != nil && fi.Mode().IsRegular() {
			offer.Files = append(offer.Files, &wire.CopyFile{Name: []byte(names[i]), SizeBytes: fi.Size(), MtimeNs: mtime(fi)})
		}
	}
	if len(offer.Files) == 0 {
		return nil, nil
	}
	if err := s.send(&wire.CopyItem{Msg: &wire.CopyItem_Offer{Offer: offer}}); err != nil {
		return nil, err
	}
	answer, err := s.out.Have()
	if err != nil {
		return nil, outError{err}
	}
	if len(answer.Offsets) != len(offer.Files) {
		return nil, invalid("%d offsets for %d files", len(answer.Offsets), len(offer.Files))
	}
	have = make(map[string]*wire.CopyFile)
	for i, f := range offer.Files {
		f.Offset = min(max(0, answer.Offsets[i]), f.SizeBytes)
		have[string(f.Name)] = f
	}
	return have, nil
}

func (s *sender) entry(d *os.Root, name, path string, fi fs.FileInfo, part *wire.CopyFile) error {
	switch {
	case fi == nil:
		return s.skip(path, gone)
	case isStage(name):
		return s.skip(path, "it is a part of a copy that was interrupted")
	case fi.IsDir():
		sub, err := openDir(d, name, fi)
		if errors.Is(err, fs.ErrNotExist) {
			return s.skip(path, gone)
		}
		if err != nil {
			return fail("read", path, err)
		}
		defer sub.Close()
		return s.dir(sub, name, path, fi)
	case fi.Mode().IsRegular():
		return s.file(source{
			name: name, path: path, part: part,
			open: func() (*os.File, error) { return d.OpenFile(name, openFlags, 0) },
		})
	case fi.Mode()&fs.ModeSymlink != 0:
		return s.link(d, name, path)
	}
	return s.skip(path, "it is "+kindOf(fi.Mode()))
}

const gone = "it has gone"

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "a device"
}

func (s *sender) link(d *os.Root, name, path string) error {
	target, err := d.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.skip(path, gone)
	}
	if err != nil {
		return fail("read", path, err)
	}
	l := &wire.CopyLink{Name: []byte(name), Target: []byte(target)}
	return s.send(&wire.CopyItem{Msg: &wire.CopyItem_Link{Link: l}})
}

func (s *sender) skip(path, why string) error {
	if s.o.Skipped != nil {
		s.o.Skipped(path, why)
	}
	return s.send(&wire.CopyItem{Msg: &wire.CopyItem_Skip{Skip: &wire.CopySkip{Path: []byte(path), Why: why}}})
}

// advance counts n bytes more as done.
func (s *sender) advance(path string, n int64) {
	s.done += n
	if s.o.Progress != nil {
		s.o.Progress(path, s.done, s.total.Bytes)
	}
}

func (s *sender) stream(r io.Reader) error {
	const mode = 0o644
	f := &wire.CopyFile{Mode: mode, MtimeNs: time.Now().UnixNano(), Unsized: true}
	if err := s.send(fileItem(f)); err != nil {
		return err
	}
	return s.rest(r, "standard input")
}
