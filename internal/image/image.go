// Package image defines images: read-only root file systems that machines
// stand on.
//
// An image has a name and, each time it is built, a new ID, the version. A
// machine's root disk stands on one version for good; building anew never
// changes what a machine stands on.
package image

import (
	"context"
	"time"
)

// Image is the record of one version of an image. It is stored beside the
// image itself.
type Image struct {
	Name          string // a DNS label
	ID            string // names this version: hexadecimal digits
	Root          string // absolute path of the raw ext4 file system; not stored
	Source        string // "recipe"; "damaged" (List alone): its record cannot be read
	RecipeHash    string // hexadecimal SHA-256 of the recipe's text
	SizeBytes     int64  // of Root, as the guest sees it
	UsedBytes     int64  // of Root, on the host's disk
	DefaultKernel string // name of the kernel it is meant for
	Init          string // absolute path of its init in the guest; empty: none
	Packages      []Package
	CreatedAt     time.Time
}

// Package is one package that an image holds.
type Package struct{ Name, Version string }

// A Library keeps images. Its methods may be called concurrently, also by
// several daemons with roots of their own.
type Library interface {
	// List returns the current version of every image, by name.
	List(ctx context.Context) ([]Image, error)
	// Get returns the current version of an image that is there. If there is
	// none, the error is of kind errkind.NotFound and names the nearest.
	Get(ctx context.Context, name string) (Image, error)
	// Version returns one version.
	Version(ctx context.Context, name, id string) (Image, error)
	// Ensure is Get, but builds an image of which a recipe is known. Two
	// calls at once build once; the build ends when ctx of the last of them
	// is cancelled.
	Ensure(ctx context.Context, name string, p Progress) (Image, error)
	// Build builds an image anew: of recipe, the text of a recipe file, or
	// if that is empty of the known recipe called name. A failed build
	// leaves nothing. The version before stays for machines that stand on it.
	Build(ctx context.Context, name string, recipe []byte, p Progress) (Image, error)
	// Delete removes every version of an image. Whether a machine still
	// stands on one is the caller's to know.
	Delete(ctx context.Context, name string) error
	// Prune removes the versions that are neither current nor in keep, a set
	// of IDs.
	Prune(ctx context.Context, keep map[string]bool) error
}

// Progress is told what is being done: stage, detail, and how much of total
// (0: not known) is done. It must not block. It is never nil.
type Progress func(stage, detail string, done, total int64)
