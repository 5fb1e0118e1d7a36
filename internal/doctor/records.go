package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
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
	processes, paths, err := e.strays(vms)
	if err != nil {
		e.warn("leftovers", nil, "cannot tell: %v", err)
		return
	}
	if len(processes)+len(paths) == 0 {
		e.ok("leftovers", "none: everything belongs to a machine")
		return
	}
	hints, found := e.mends(processes, paths)
	detail := "of no machine: " + strings.Join(found, ", ")
	if len(vms) == 0 {
		detail += "; if a database was put aside, put it back first"
	}
	e.warn("leftovers", hints, "%s", detail)
}

// mends returns what there is of leftovers, and the commands that do away with
// it. Disks may hold what somebody wants back: a database that was put aside
// leaves all of them without an owner.
func (e *examination) mends(processes []Process, paths []string) (hints, found []string) {
	var pids, disks, sockets []string
	for _, p := range processes {
		pids = append(pids, fmt.Sprint(p.PID))
	}
	for _, path := range paths {
		if filepath.Dir(path) == e.Paths.VMs() {
			disks = append(disks, errkind.Quote(path))
		} else {
			sockets = append(sockets, errkind.Quote(path))
		}
	}
	aside := errkind.Quote(filepath.Join(e.Paths.State, "aside"))
	for _, l := range []struct {
		what, mend string
		list       []string
	}{
		{"process", "kill -9", pids},
		{"directory of disks", "mkdir -p " + aside + " && mv --backup=numbered -t " + aside, disks},
		{"directory of sockets", "rm -r", sockets},
	} {
		if few := l.list[:min(len(l.list), maxNamed)]; len(few) > 0 {
			found = append(found, fmt.Sprintf("%d × %s (%s)", len(l.list), l.what, strings.Join(few, ", ")))
			hints = append(hints, l.mend+" "+strings.Join(few, " "))
		}
	}
	return hints, found
}

// strays returns what belongs to none of the machines. The host was looked at
// before the records, so that what has been made since is not among it; a
// machine that has been deleted since had gone from the host before it went
// from the records, so what is a leftover is there now as well.
func (e *examination) strays(vms []vm.VM) (processes []Process, paths []string, err error) {
	owned, uids := make(map[string]bool), make(map[uint32]bool)
	for _, v := range vms {
		owned[string(v.ID)], uids[v.UID] = true, true
	}
	processes = slices.DeleteFunc(slices.Clone(e.Host.Processes), func(p Process) bool { return uids[p.UID] })
	paths = slices.DeleteFunc(slices.Clone(e.Host.Entries), func(path string) bool { return owned[filepath.Base(path)] })
	if len(processes)+len(paths) == 0 {
		return nil, nil, nil
	}
	run, stand, err := e.Again()
	if err != nil {
		return nil, nil, err
	}
	processes = slices.DeleteFunc(processes, func(p Process) bool {
		return !slices.ContainsFunc(run, func(r Process) bool { return r.PID == p.PID && r.UID == p.UID })
	})
	paths = slices.DeleteFunc(paths, func(path string) bool { return !slices.Contains(stand, path) })
	return processes, paths, nil
}

// count writes how many machines there are.
func count(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}
