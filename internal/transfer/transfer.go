// Package transfer carries files and trees from one file system to another,
// over a stream of messages: [Send] reads at one end, a [Receiver] writes at
// the other. It knows nothing of machines; either end may be a guest, so
// neither trusts what the other says.
//
// Kept are content (with its holes), permissions, times of change and symbolic
// links, which are never followed within a tree. Owners are not: everything
// belongs to whoever receives. What is neither file, directory nor link is
// passed over, and told.
//
// A file is written under a name of its own (see stage.go) beside its place and
// renamed when it is whole. If the stream breaks, that part stays, and a later
// copy that offers the file gets to know of it; after any other failure it is
// removed. A part counts for the same file as long as name, size and time of
// change are the same: its bytes are not compared.
package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

const (
	// chunk is how many bytes of a file a message holds at most. A smaller
	// file is one message with all that there is to it.
	chunk = 128 << 10
	// maxDepth is how deep a tree may be: each level holds a file open, at
	// both ends.
	maxDepth = 256
	// maxName and maxLink are Linux's limits of a name and of a link's target,
	// in bytes (limits.h: NAME_MAX, PATH_MAX less the terminating zero).
	maxName = 255
	maxLink = 4095
	// maxOffer is how many files an offer lists at most.
	maxOffer = 64
)

var (
	// ErrInvalid says that what the other end sent makes no sense.
	ErrInvalid = errors.New("what the other end sent makes no sense")
	// ErrAborted says that the other end cannot go on.
	ErrAborted = errors.New("the other end cannot go on")
	// ErrKind says that something is not a file, or not one or a directory.
	ErrKind      = errors.New("it is neither a file nor a directory")
	errDirectory = errors.New("a directory cannot go there")
	// ErrBusy says that another copy is writing the same file.
	ErrBusy = errors.New("another copy is writing it")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// fail says what could not be done to the file at path, as its user knows it,
// and why, without the names by which it was reached.
func fail(op, path string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &le):
		err = le.Err
	case errors.As(err, &pe):
		err = pe.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// join appends a name to a path, as messages show it.
func join(dir, name string) string {
	if name == "" {
		return dir
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

// list returns the names in a directory, in the order of a copy.
func list(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// openDir opens the directory at name in dir, which must be the one that fi
// tells of: [os.Root] would follow a link.
func openDir(dir *os.Root, name string, fi fs.FileInfo) (*os.Root, error) {
	if !fi.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	now, err := sub.Stat(".")
	if err == nil && !os.SameFile(fi, now) {
		err = &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	if err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// unixMode returns the twelve bits of a mode (stat(2)).
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for bit, flag := range specialBits {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// goMode is the opposite of unixMode.
func goMode(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	for bit, flag := range specialBits {
		if bits&bit != 0 {
			m |= flag
		}
	}
	return m
}

var specialBits = map[uint32]fs.FileMode{
	0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky,
}

func mtime(fi fs.FileInfo) int64 { return fi.ModTime().UnixNano() }

func atNano(ns int64) time.Time { return time.Unix(0, ns) }

func fileItem(f *wire.CopyFile) *wire.CopyItem {
	return &wire.CopyItem{Msg: &wire.CopyItem_File{File: f}}
}

func dataItem(b []byte) *wire.CopyItem {
	return &wire.CopyItem{Msg: &wire.CopyItem_Data{Data: b}}
}

func leaveItem() *wire.CopyItem { return &wire.CopyItem{Msg: &wire.CopyItem_Leave{Leave: true}} }
func endItem() *wire.CopyItem   { return &wire.CopyItem{Msg: &wire.CopyItem_End{End: true}} }
func abortItem() *wire.CopyItem { return &wire.CopyItem{Msg: &wire.CopyItem_Abort{Abort: true}} }
func doneItem() *wire.CopyItem  { return &wire.CopyItem{Msg: &wire.CopyItem_Done{Done: true}} }
