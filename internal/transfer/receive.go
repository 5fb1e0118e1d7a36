package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// ReceiveOptions say what a [Receiver] does with what comes.
type ReceiveOptions struct {
	// Names are what the entries of the first level are called where the
	// target is a directory, in their order. An empty one is a directory
	// whose content is meant. At least one is required.
	Names []string
	// Special keeps the bits for set-user-id, set-group-id and sticky. At the
	// host's end a guest must not give them.
	Special bool
	Resume  bool // go on with what an interrupted copy has left
	// Sync has everything on the disk by the time that all of it is in its
	// place, and a file or directory of the first level before it is there.
	Sync bool
	// Progress is told what is being received, and how many bytes of how
	// many, by the sender's account, have been. May be nil.
	Progress func(path string, done, total int64)
	// Skipped is told what the sender passed over, and why. May be nil.
	Skipped func(path, why string)
}

// A Receiver puts what [Send] sends into its place. What it is told is checked:
// nothing is written but below the target, names and sizes are held to.
//
// It may be used by one goroutine at a time. After an error of Item only Close
// may be called.
type Receiver struct {
	o      ReceiveOptions
	t      target
	levels []*level // the directories that are begun; the first is the target
	next   int      // of Names
	file   *incoming
	done   int64 // bytes
	total  int64 // bytes, by the sender's account
	begun  bool
	ended  bool
}

// level is a directory that is begun.
type level struct {
	root  *os.Root
	path  string
	last  string              // name of the entry that came last
	parts map[string][]string // see stage.go; nil: not looked for yet
	fresh bool                // it was empty when it was begun
	ours  bool                // this copy has made it, or one that it goes on with
	name  string              // in parent; when ours, with mode and mtime
	mode  fs.FileMode
	mtime int64

	stage  string   // its name until it is whole; empty: its own
	parent *os.Root // of stage
	lock   *os.File // of stage
	dirty  bool     // files were put in it that are not on the disk yet
}

// NewReceiver returns a receiver for what is to be at path: in it, if it is a
// directory, else under that name in a directory that must exist. Close it.
func NewReceiver(path string, o ReceiveOptions) (*Receiver, error) {
	for _, name := range o.Names {
		if name != "" && !validName(name) {
			return nil, invalid("%q is no name", name)
		}
	}
	t, err := openTarget(path, len(o.Names) > 1)
	if err != nil {
		return nil, err
	}
	return &Receiver{o: o, t: t, levels: []*level{{root: t.root, path: t.path}}}, nil
}

// Close ends the copy. What is not whole yet stays for a later copy to go on
// with, unless Item has returned an error. It may be called twice.
func (r *Receiver) Close() error {
	return r.close((*incoming).keep, (*level).keep)
}

// Discard ends the copy as Close does, and leaves nothing that is not whole.
func (r *Receiver) Discard() error {
	return r.close((*incoming).discard, (*level).discard)
}

func (r *Receiver) close(file func(*incoming) error, dir func(*level) error) error {
	var errs []error
	if r.file != nil {
		errs = append(errs, file(r.file))
		r.file = nil
	}
	for _, l := range slices.Backward(r.levels) {
		errs = append(errs, dir(l))
	}
	r.levels = nil
	return errors.Join(errs...)
}

// Whole reports whether all that the sender had to send is in its place.
func (r *Receiver) Whole() bool { return r.ended }

// Item takes what came. The answer is not nil if it was an offer. After an
// error nothing is left of what was not whole, unless it is the cause of ctx's
// end: then it stays, as after Close. Item waits for another copy of the same a
// moment, which ctx can end.
func (r *Receiver) Item(ctx context.Context, it *wire.CopyItem) (*wire.CopyHave, error) {
	have, err := r.item(ctx, it)
	if err != nil {
		end := r.Discard
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
			end = r.Close
		}
		if derr := end(); derr != nil {
			err = fmt.Errorf("%w (and %w)", err, derr)
		}
	}
	return have, err
}

func (r *Receiver) item(ctx context.Context, it *wire.CopyItem) (*wire.CopyHave, error) {
	if r.ended || r.levels == nil {
		return nil, invalid("more after the end")
	}
	switch m := it.GetMsg().(type) {
	case *wire.CopyItem_Data:
		return nil, r.data(m.Data)
	case *wire.CopyItem_Hole:
		return nil, r.hole(m.Hole)
	case *wire.CopyItem_End:
		return nil, r.end()
	case *wire.CopyItem_Abort:
		return nil, ErrAborted
	}
	if r.file != nil {
		return nil, invalid("%s ends %d bytes early", r.file.path, r.file.size-r.file.at)
	}
	switch m := it.GetMsg().(type) {
	case *wire.CopyItem_Total:
		return nil, r.sum(m.Total)
	case *wire.CopyItem_Dir:
		return nil, r.enter(ctx, m.Dir)
	case *wire.CopyItem_Leave:
		return nil, r.leave()
	case *wire.CopyItem_File:
		return nil, r.begin(ctx, m.File)
	case *wire.CopyItem_Link:
		return nil, r.link(m.Link)
	case *wire.CopyItem_Offer:
		return r.offer(m.Offer)
	case *wire.CopyItem_Skip:
		if r.o.Skipped != nil {
			r.o.Skipped(string(m.Skip.GetPath()), m.Skip.GetWhy())
		}
		return nil, nil
	case *wire.CopyItem_Done:
		if len(r.levels) > 1 || r.next < len(r.o.Names) {
			return nil, invalid("an end before the end")
		}
		r.ended = true
		if !r.o.Sync {
			return nil, nil
		}
		return nil, r.levels[0].sync((*os.File).Sync)
	}
	return nil, invalid("an item of no kind")
}

func (r *Receiver) sum(t *wire.CopyTotal) error {
	if r.begun {
		return invalid("two totals")
	}
	r.begun, r.total = true, max(0, t.GetBytes())
	return nil
}

// place is where an entry goes.
type place struct {
	*level
	name string // empty: the level itself
	path string
}

// place returns the place of the next entry, which the sender calls name. What
// names those of the first level is what was asked for, never the sender.
func (r *Receiver) place(name []byte) (place, error) {
	l := r.levels[len(r.levels)-1]
	if len(r.levels) > 1 {
		n := string(name)
		switch {
		case !validName(n):
			return place{}, invalid("%q is no name", n)
		case isStage(n):
			return place{}, invalid("%q is the name of a part", n)
		case n <= l.last:
			return place{}, invalid("%q after %q", n, l.last)
		}
		l.last = n
		return place{l, n, join(l.path, n)}, nil
	}
	p, err := r.first()
	r.next++
	return p, err
}

// first is the place of the entry of the first level that comes next.
func (r *Receiver) first() (place, error) {
	l := r.levels[0]
	if r.next >= len(r.o.Names) {
		return place{}, invalid("more than was asked for")
	}
	name := r.o.Names[r.next]
	if r.t.name != "" {
		name = r.t.name
	}
	return place{l, name, join(l.path, name)}, nil
}

// free checks that a file or a link may come to a place: only one of their
// kind may have to go for it.
func (p place) free() error {
	if p.name == "" {
		return fail("write", p.path, unix.EISDIR)
	}
	fi, err := p.root.Lstat(p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fail("write", p.path, err)
	case fi.IsDir():
		return fail("write", p.path, unix.EISDIR)
	case !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0:
		return fail("write", p.path, ErrKind)
	}
	return nil
}

// mode makes a mode of what a sender says.
func (r *Receiver) mode(bits uint32) fs.FileMode {
	if !r.o.Special {
		bits &= 0o777
	}
	return goMode(bits)
}

func (r *Receiver) advance(path string, n int64) {
	r.done += n
	if r.o.Progress != nil {
		r.o.Progress(path, r.done, r.total)
	}
}

// validName reports whether a name is that of an entry in a directory.
func validName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] == 0 || s[i] == '/' {
			return false
		}
	}
	return true
}
