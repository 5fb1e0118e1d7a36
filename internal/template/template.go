// Package template defines templates: machines of an image that were booted
// once, told to be quiet and frozen, and from which new machines are restored.
//
// A template is four files: the guest's memory, the state of its devices, the
// layer of its root disk, and its work disk. Its guest has both mounted. Everything that they depend on is in its [Key],
// which also gives it its ID; so a template never changes, and what changes one
// of those things finds no template. Machines restored from it have a layer of
// their own over its root disk, for as long as they exist.
//
// How templates are kept is said here; how they are made and used is not.
package template

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// ErrDamaged is in the chain of the error of a template that must not be used:
// a file of it is not there or not what it was, or it was set aside.
var ErrDamaged = errors.New("damaged")

// Names of the four files, in the directory where a template is made and in
// that where it is kept.
const (
	RAMName   = "ram"
	StateName = "state"
	RootName  = "root"
	WorkName  = "work"
)

// Template is the record of one template, stored beside it.
type Template struct {
	ID        string    // [Key.ID] of Key
	Key       Key       // what it depends on
	Token     string    // 32 hexadecimal digits that greet the frozen agent; who can read RAM can read it there
	BootID    string    // of the boot of the guest that was frozen
	CreatedAt time.Time // when it was published, in UTC
	UsedAt    time.Time // when it was last used, in UTC; zero: never
	SizeBytes int64     // on the host's disk; not stored

	// Dir is absolute, and another for a template that is made anew, even of
	// the same key; not stored. Empty if even that is damaged.
	Dir string
	// Damaged says why it cannot be used; empty: it can, as far as is known
	// without reading it through. Then only ID and Dir need be right.
	Damaged string
}

// RAM is the absolute path of the guest's memory, sparse.
func (t Template) RAM() string { return t.file(RAMName) }

// State is the absolute path of the state of processors and devices.
func (t Template) State() string { return t.file(StateName) }

// Root is the absolute path of the root disk's layer, on which the layers of
// machines stand.
func (t Template) Root() string { return t.file(RootName) }

// Work is the absolute path of the work disk, sparse, of which machines have
// copies.
func (t Template) Work() string { return t.file(WorkName) }

func (t Template) file(name string) string {
	if t.Dir == "" {
		return ""
	}
	return filepath.Join(t.Dir, name)
}

// LastUse is when the template was last used or, if it never was, made.
func (t Template) LastUse() time.Time {
	if t.UsedAt.After(t.CreatedAt) {
		return t.UsedAt
	}
	return t.CreatedAt
}

// A Library keeps templates. Its methods may be called concurrently, also by
// several processes. An ID of which there is no template gives an error of kind
// errkind.NotFound.
type Library interface {
	// Stage begins to make the template of a key. One at a time is made of a
	// key: while somebody else, in whatever process, makes or removes it,
	// and while it is there, whole or damaged, the error is of kind
	// errkind.Conflict, at once. Whether there is room is for the caller to
	// see to.
	Stage(ctx context.Context, k Key) (Stage, error)
	// Get returns a template, also a damaged one, for machines may stand on
	// its root disk: then Damaged says why it must not be used for more. It
	// looks at the record and at the sizes of files.
	Get(ctx context.Context, id string) (Template, error)
	// Use is Get for somebody who is about to restore a machine: it reads the
	// state through as well, though not memory and root disk, and notes that
	// the template is used. Of a damaged one the error is an [ErrDamaged];
	// it stays as it is until somebody sets it aside.
	Use(ctx context.Context, id string) (Template, error)
	// SetAside notes, durably, that a template must not be used again, and
	// why. Its files stay where they are, for machines may stand on them,
	// until Delete or Prune. It may be called twice: the first reason
	// stands. After an error the template is as it was.
	SetAside(ctx context.Context, id, why string) error
	// Verify reads all of a template and compares it with what was
	// published. If it is not that, or was set aside, the error is an
	// [ErrDamaged] that says why. It changes nothing.
	Verify(ctx context.Context, id string) error
	// List returns every template, damaged ones too, by ID.
	List(ctx context.Context) ([]Template, error)
	// Delete removes a template. Whether a machine stands on it is the
	// caller's to know. Whoever dies at it leaves all of it or nothing that
	// can be seen.
	Delete(ctx context.Context, id string) error
	// Prune removes what [PruneOptions.Choose] says and what those who died
	// left half made, and returns the templates that it has removed, also
	// with an error. One that is made or removed by somebody else, or used
	// since Prune began, stays. It does not stop at an error.
	Prune(ctx context.Context, o PruneOptions) ([]Template, error)
}

// A Stage is a template being made. Its methods must not be called
// concurrently.
type Stage interface {
	// Dir is the absolute path of an empty directory that nobody but the
	// caller's user can enter. The four files are made in it; what else is
	// left there never becomes part of the template.
	Dir() string
	// Publish makes the template of the files, which nobody may write to any
	// more, and ends the stage. Of t it takes Token and BootID. What it
	// returns is as from Get: everybody may read its files, which are
	// durable. On an error the stage is good for Discard alone, and there is
	// no template of the key; only an error of the disk at the very end may
	// leave one, which is whole.
	Publish(ctx context.Context, t Template) (Template, error)
	// Discard ends the stage and removes what there is of it. It may be
	// called twice, and after Publish.
	Discard() error
}
