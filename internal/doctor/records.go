package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"banger/internal/config"
	"banger/internal/vm"
)

// ErrOlder says that a database is of an earlier version: the daemon's next
// start upgrades it.
var ErrOlder = errors.New("the database is of an earlier version")

// maxNamed is how many leftovers one line names.
const maxNamed = 5

func (e *examination) records(ctx context.Context) {
	e.configuration()
	vms, err := e.Records(ctx)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		e.database(len(vms), err)
		e.leftovers(vms)
		return
	}
	switch {
	case errors.Is(err, fs.ErrPermission) && !e.Host.Root:
		e.unseen("database", e.Paths.Database())
	case errors.Is(err, ErrOlder):
		e.ok("database", "%s is of an earlier version; the daemon's next start upgrades it, after a backup", e.Paths.Database())
	default:
		e.failed("database", err, "ls -l "+quote(e.Paths.Database()))
	}
	e.warn("leftovers", nil, "not looked at: without the records nobody knows whose what is")
}

func (e *examination) configuration() {
	var at *config.FileError
	path := e.Paths.Config
	switch err := e.ConfigErr; {
	case err == nil:
		what := "is in order"
		if !e.HasConfig {
			what = "is not there: the defaults hold"
		}
		e.ok("configuration", "%s %s", path, what)
	case errors.Is(err, fs.ErrPermission) && !e.Host.Root:
		e.unseen("configuration", path)
	case errors.As(err, &at) && at.Line > 0:
		// What was meant nobody can tell. Without the line its default holds.
		e.fail("configuration", []string{fmt.Sprintf("sed -i '%ds/^/# /' %s", at.Line, quote(path))}, "%v; the defaults are looked at here", err)
	default:
		e.fail("configuration", []string{"${EDITOR:-vi} " + quote(path)}, "%v; the defaults are looked at here", err)
	}
}

func (e *examination) database(machines int, none error) {
	if none != nil {
		e.ok("database", "there is none yet")
		return
	}
	e.ok("database", "%s is sound; %s", e.Paths.Database(), count(machines, "machine"))
}

// leftovers names what is of ours and belongs to no machine.
func (e *examination) leftovers(vms []vm.VM) {
	if errors.Is(e.Host.EntryErr, fs.ErrPermission) && !e.Host.Root {
		e.unseen("leftovers", e.Paths.VMs())
		return
	}
	if e.Host.EntryErr != nil {
		e.warn("leftovers", nil, "cannot tell: %v", e.Host.EntryErr)
		return
	}
	owned, uids := make(map[string]bool), make(map[uint32]bool)
	for _, v := range vms {
		owned[string(v.ID)], uids[v.UID] = true, true
	}
	var dirs, processes []string
	for _, path := range e.Host.Entries {
		if !owned[filepath.Base(path)] {
			dirs = append(dirs, quote(path))
		}
	}
	for _, p := range e.Host.Processes {
		if !uids[p.UID] {
			processes = append(processes, fmt.Sprint(p.PID))
		}
	}
	if len(dirs)+len(processes) == 0 {
		e.ok("leftovers", "none: everything belongs to a machine")
		return
	}
	var hints, found []string
	for _, l := range []struct {
		what, mend string
		list       []string
	}{{"process", "kill -9", processes}, {"directory", "rm -r", dirs}} {
		if few := l.list[:min(len(l.list), maxNamed)]; len(few) > 0 {
			found = append(found, fmt.Sprintf("%s (%s)", count(len(l.list), l.what), strings.Join(few, ", ")))
			hints = append(hints, l.mend+" "+strings.Join(few, " "))
		}
	}
	e.warn("leftovers", hints, "of no machine: %s", strings.Join(found, ", "))
}

// count writes how many there are of something.
func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	case strings.HasSuffix(what, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	}
	return fmt.Sprintf("%d %ss", n, what)
}
