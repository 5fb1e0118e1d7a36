package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"banger/internal/config"
	"banger/internal/errkind"
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
		e.failed("database", err, "ls -l "+errkind.Quote(e.Paths.Database()))
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
		e.fail("configuration", []string{fmt.Sprintf("sed -i '%ds/^/# /' %s", at.Line, errkind.Quote(path))}, "%v; the defaults are looked at here", err)
	default:
		e.fail("configuration", []string{"${EDITOR:-vi} " + errkind.Quote(path)}, "%v; the defaults are looked at here", err)
	}
}

func (e *examination) database(machines int, none error) {
	if none != nil {
		e.ok("database", "there is none yet")
		return
	}
	e.ok("database", "%s is sound; %s", e.Paths.Database(), count(machines))
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
	processes, disks, sockets := e.strays(vms)
	if len(processes)+len(disks)+len(sockets) == 0 {
		e.ok("leftovers", "none: everything belongs to a machine")
		return
	}
	// Disks may hold what somebody wants back: a database that was put aside
	// leaves all of them without an owner.
	aside := errkind.Quote(filepath.Join(e.Paths.State, "aside"))
	var hints, found []string
	for _, l := range []struct {
		what, mend string
		list       []string
	}{
		{"process", "kill -9", processes},
		{"directory of disks", "mkdir -p " + aside + " && mv --backup=numbered -t " + aside, disks},
		{"directory of sockets", "rm -r", sockets},
	} {
		if few := l.list[:min(len(l.list), maxNamed)]; len(few) > 0 {
			found = append(found, fmt.Sprintf("%d × %s (%s)", len(l.list), l.what, strings.Join(few, ", ")))
			hints = append(hints, l.mend+" "+strings.Join(few, " "))
		}
	}
	detail := "of no machine: " + strings.Join(found, ", ")
	if len(vms) == 0 {
		detail += "; if a database was put aside, put it back first"
	}
	e.warn("leftovers", hints, "%s", detail)
}

// strays returns what belongs to none of the machines: pids, and paths quoted.
func (e *examination) strays(vms []vm.VM) (processes, disks, sockets []string) {
	owned, uids := make(map[string]bool), make(map[uint32]bool)
	for _, v := range vms {
		owned[string(v.ID)], uids[v.UID] = true, true
	}
	for _, p := range e.Host.Processes {
		if !uids[p.UID] {
			processes = append(processes, fmt.Sprint(p.PID))
		}
	}
	for _, path := range e.Host.Entries {
		switch {
		case owned[filepath.Base(path)]:
		case filepath.Dir(path) == e.Paths.VMs():
			disks = append(disks, errkind.Quote(path))
		default:
			sockets = append(sockets, errkind.Quote(path))
		}
	}
	return processes, disks, sockets
}

// count writes how many machines there are.
func count(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}
