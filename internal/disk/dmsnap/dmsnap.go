package dmsnap

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"banger/internal/disk"
)

const (
	cowName    = "root.cow"
	recordName = "root.cow.json"
	nodeName   = "root.dev"

	// busyLimit is how long a device that somebody uses is waited for.
	busyLimit = 10 * time.Second
)

// Options say whose layers they are.
type Options struct {
	Tag string // the daemon's instance tag; required
}

// Layers is the [disk.Layers] of VMMs that take a block device. It needs root
// and what [Layers.Check] looks for. Its methods may be called concurrently,
// but not for one layer.
type Layers struct {
	tag       string
	busyLimit time.Duration
	freeLoop  func() (int, error) // number of a loop that nobody uses

	mu sync.Mutex // held while a base's loop is looked for or made
}

var _ disk.Layers = (*Layers)(nil)

// New returns layers whose devices have o's tag in their names.
func New(o Options) *Layers {
	return &Layers{tag: o.Tag, busyLimit: busyLimit, freeLoop: freeLoop}
}

// Name is the device-mapper name of a machine's snapshot; pure.
func Name(tag, id string) string { return "banger-" + tag + "-" + id }

func (ls *Layers) name(l disk.Layer) string { return Name(ls.tag, l.ID) }

// originName is the name of the device below the snapshot, where there is one.
func originName(name string) string { return name + "-origin" }

// checkName reports names that the kernel does not take, or takes for others.
func (ls *Layers) checkName(l disk.Layer) error {
	if ls.tag == "" || l.ID == "" || !plain(ls.tag) || !plain(l.ID) || len(originName(ls.name(l))) >= maxName {
		return fmt.Errorf("internal error: no device can be named after tag %q and machine %q", ls.tag, l.ID)
	}
	if !filepath.IsAbs(l.Dir) {
		return errors.New("internal error: the machine's directory is not absolute")
	}
	return nil
}

func plain(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// Path is the COW file.
func (ls *Layers) Path(l disk.Layer) string { return filepath.Join(l.Dir, cowName) }
