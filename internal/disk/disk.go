// Package disk defines what banger needs of a machine's disks: a writable
// layer over an image's read-only root, and a work disk of its own.
//
// The life of a layer: Create makes what must survive stop and restart, Attach
// what must be there while the machine runs, Detach removes that again, Delete
// removes the rest. Each may be called twice, and after a failure or crash of
// itself or of any other; each finds its objects from the layer's ID and
// directory alone. What every implementation promises is checked by package
// disktest.
package disk

import (
	"context"
	"errors"
	"io"
)

// Layers makes writable layers. Calls for one layer do not overlap.
type Layers interface {
	// Check returns nil if such layers can be made on this host, else an
	// error of kind errkind.Host that names what is missing, with a hint.
	Check(ctx context.Context) error
	// Create makes an empty layer. If it exists already it is left as it is.
	// On an error nothing is left.
	Create(ctx context.Context, l Layer) error
	// Attach makes the layer's device. If it is attached already the same
	// device is returned. On an error something may be left for Detach.
	Attach(ctx context.Context, l Layer) (Device, error)
	// Detach removes the device. It needs only ID and Dir, and succeeds if
	// there is none.
	Detach(ctx context.Context, l Layer) error
	// Delete detaches the layer and removes what it holds, for good. It
	// needs only ID and Dir, and succeeds if there is none.
	Delete(ctx context.Context, l Layer) error
	// Path is where the layer keeps what was written to it; pure.
	Path(l Layer) string
}

// Layer is one machine's writable root.
type Layer struct {
	ID        string // of the machine
	Dir       string // the machine's directory, which exists
	Base      string // raw image that it stands on, never written to
	Template  string // layer of the same kind over Base that this one stands on, never written to; of a work disk, one that it begins as a copy of, not larger; empty: none
	BaseID    string // names the content of Base: compared, never computed; empty: not known
	SizeBytes int64  // as the guest sees it; at least that of Base
	UID       uint32 // user that must be able to read and write it
}

// Device is an attached layer, ready for a VMM.
type Device struct {
	Path     string   // file or block device
	Format   string   // "raw" or "qcow2"
	Backing  []string // for a format that stands on files: layers, nearest first, and the base; else empty
	BaseLoop string   // "/dev/loop3", or empty
	CowLoop  string
	DMName   string
	DMDev    string // "/dev/mapper/…", or empty
}

// Work makes work disks: an empty ext4 file system each, in a sparse file,
// which the guest fills at its first mount.
type Work interface {
	// Create makes the disk of l.SizeBytes at Path(l), owned by l.UID, mode
	// 0600: as a copy of Template with zeros behind it if it has one, else
	// empty. If it exists already it is left as it is. On an error nothing is
	// left. Base is not used.
	Create(ctx context.Context, l Layer) error
	// Grow makes a disk that nobody uses l.SizeBytes large, with its file
	// system, which is checked first; one that is as large or larger already
	// is left as it is. On an error what is in it is as it was.
	Grow(ctx context.Context, l Layer) error
	// Open opens the file system of a disk that nobody uses, to be read as its
	// guest's next mount would see it. What can be read of a damaged one is
	// read. Others may open it at the same time.
	Open(ctx context.Context, l Layer) (Files, error)
	// Delete removes it, and succeeds if there is none.
	Delete(ctx context.Context, l Layer) error
	// Path is where it stands; pure.
	Path(l Layer) string
}

// ErrDamaged is what reading a work disk meets that makes no sense: it will not
// another time either.
var ErrDamaged = errors.New("damaged")

// Files are those on a work disk, written by a guest that may be hostile:
// reading them is bounded, and follows no link.
type Files interface {
	// Open opens a regular file by its path from the root of the disk, which
	// is "/". [fs.ErrNotExist]: there is none. It needs no closing.
	Open(path string) (File, error)
	// Close ends the use of the disk; files that were opened cannot be read
	// any more. It is called once.
	Close() error
}

// File is a regular file. Its methods may be called concurrently.
type File interface {
	io.ReaderAt
	Size() int64
}
