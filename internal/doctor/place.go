package doctor

import (
	"fmt"

	"banger/internal/config"
	"banger/internal/errkind"
)

// littleFree is what an image and its build, or a machine that is used, soon
// take.
const littleFree = 2 << 30

func (e *examination) places() {
	for _, s := range e.Host.Spaces {
		e.space(s)
	}
	e.permissions()
}

// space looks at one file system, however many of our directories it holds.
func (e *examination) space(s Space) {
	hints := []string{"df -h " + errkind.Quote(s.Dir)}
	if len(e.Host.Entries) > 0 {
		hints = append(hints, "banger vm prune")
	}
	switch {
	case s.Err != nil:
		e.fail("disk", hints[:1], "%v", s.Err)
	case s.Free < config.MinFree && !s.Cache:
		e.fail("disk", hints, "%s has %s left, and a machine takes at least %s", s.Dir, size(s.Free), size(config.MinFree))
	case s.Free < littleFree:
		e.warn("disk", hints, "%s has %s left, which an image or a machine in use soon takes", s.Dir, size(s.Free))
	default:
		e.ok("disk", "%s has %s left", s.Dir, size(s.Free))
	}
}

// size writes a number of bytes in the largest unit of which there are some.
func size(n int64) string {
	unit := int64(1 << 20)
	if n >= 10<<30 {
		unit = 1 << 30
	}
	return config.Size(n / unit * unit).String()
}

// permissions looks at who may do what: whoever asks, and the users that VMMs
// run as, which must get through to their directories.
func (e *examination) permissions() {
	for _, p := range e.Host.Places {
		switch {
		case p.Ours && !p.Mode.IsDir():
			e.fail("permissions", []string{fmt.Sprintf("mv --backup=numbered %s %s", errkind.Quote(p.Path), errkind.Quote(p.Path+".old"))},
				"%s is not a directory", p.Path)
		case p.Ours && p.UID != 0:
			e.fail("permissions", []string{"chown root " + errkind.Quote(p.Path)}, "%s belongs to user %d, not to root", p.Path, p.UID)
		case p.Closed != nil:
			e.failed("permissions", p.Closed)
		default:
			continue
		}
		return
	}
	if e.Host.Root {
		e.ok("permissions", "you are root, and VMMs' users get through to their directories")
		return
	}
	e.ok("permissions", "VMMs' users get through to their directories")
}
