// Package kernel defines the kernels that guests boot.
package kernel

import (
	"context"
	"io"
	"time"
)

// Kernel is the record of one kernel, stored beside it.
type Kernel struct {
	Name           string // a DNS label, such as "debian-cloud"
	Version        string // what uname -r gives in the guest
	ID             string // names this version of it: hexadecimal digits
	Source         string // "debian" or "import"; "damaged" (List alone): its record cannot be read
	PackageVersion string // of the Debian package, or empty
	SizeBytes      int64  // of all its files
	CreatedAt      time.Time

	VMLinux     string   // absolute path of the ELF kernel; not stored
	ModulesDisk string   // absolute path of the read-only ext4 file system that guests see as /lib/modules/<Version>; empty: no modules
	BootModules []string // absolute paths of the uncompressed modules that an initramfs needs, in the order of loading
}

// A Library keeps kernels. Its methods may be called concurrently.
type Library interface {
	// List returns every kernel, by name.
	List(ctx context.Context) ([]Kernel, error)
	// Get returns a kernel that is there. If there is none, the error is of
	// kind errkind.NotFound and names the nearest.
	Get(ctx context.Context, name string) (Kernel, error)
	// Ensure is Get, but pulls a kernel that can be pulled. Two calls at
	// once pull once.
	Ensure(ctx context.Context, name string, p Progress) (Kernel, error)
	// Pull fetches the newest version of a kernel. A failed pull leaves
	// nothing, and the version before in place.
	Pull(ctx context.Context, name string, p Progress) (Kernel, error)
	// Import takes a kernel image (bzImage or ELF) and a tar of its
	// lib/modules/<version> (nil or empty: a kernel with everything built
	// in). Both are read to their ends or their limits.
	Import(ctx context.Context, name string, image, modules io.Reader, p Progress) (Kernel, error)
	// Delete removes a kernel. Whether a machine uses it is the caller's to
	// know.
	Delete(ctx context.Context, name string) error
}

// Progress is told what is being done: stage, detail, and how much of total
// (0: not known) is done. It must not block. It is never nil.
type Progress func(stage, detail string, done, total int64)
