// Package doctor tells whether machines can run on this host, and what stands
// in the way: one [api.Check] for each thing that a machine needs, with the
// command that mends it.
//
// It changes nothing, needs no daemon, and goes on where it may not look: what
// it could not see it says. The facts of the host ([Host]) and the contracts
// are given to it; each check is a function of them alone, in the file of its
// subject. A check fails if machines cannot run for its sake, and warns if
// they can, but not as they should.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/vm"
)

// Driver is what is asked of the VMM driver that machines get by default; a
// vmm.Driver is one.
type Driver interface {
	Name() string
	Check(ctx context.Context) error
	Version(ctx context.Context) (string, error)
}

// Network is what is asked of the host's network; a [network.Network] is one.
type Network interface {
	Check(ctx context.Context) error
	Obstacles(ctx context.Context) ([]network.Obstacle, error)
}

// Deps is what doctor looks at. All functions are required, and are called
// once at most.
type Deps struct {
	Version string    // of this program
	Client  string    // of the banger that asks; empty: not known
	Built   time.Time // when this program was; zero: not known

	Paths     config.Paths // with the cache that the configuration names
	HasConfig bool         // there is a configuration file
	ConfigErr error        // of loading the configuration: then the defaults are looked at
	AgentErr  error        // of finding the agent's program
	LimitsErr error        // why VMMs run without limits; nil: they have them
	Host      Host

	Driver    Driver // nil: see DriverErr
	DriverErr error  // there is no such driver as the configuration says
	Better    Driver // would be the default where it can run; nil: it is, or was not to be
	// TSCRate is the rate of the host's time stamp counter in kHz, 0 if it
	// makes no sense.
	TSCRate func(context.Context) (uint32, error)
	Network Network // nil: its checks are left out

	// Look finds a program, or returns an error.
	Look func(program string) (string, error)
	// Records reads the records of all machines from the database, without
	// changing it. The error is [fs.ErrNotExist] if there is none, and
	// [ErrOlder] if the daemon's next start upgrades it.
	Records func(context.Context) ([]vm.VM, error)
	// Again lists once more what Host.Processes and Host.Entries hold, as it
	// is now.
	Again func() (processes []Process, entries []string, err error)
	// Ping asks the daemon whether it is there. Without one the error is as
	// [client.IsNone] says; of one that does not answer in time it is of kind
	// [errkind.Timeout].
	Ping func(context.Context) error
	// Status asks the daemon that has answered for its status. One that is
	// sound may fail to tell it, or take too long.
	Status func(context.Context) (*api.StatusResponse, error)
	// LockHolder returns the process that has this root, if one does.
	LockHolder func() (pid int, ok bool)
}

// Run looks at everything.
func Run(ctx context.Context, d Deps) *api.Doctor {
	e := &examination{Deps: d}
	e.software(ctx)
	e.networks(ctx)
	e.places()
	e.records(ctx)
	e.service(ctx)
	e.clock(ctx)
	e.ssh()
	r := &api.Doctor{OK: true, Checks: e.checks}
	var failed []string
	for _, c := range e.checks {
		if c.Status == api.CheckFail {
			failed = append(failed, c.Name)
		}
	}
	if len(failed) > 0 {
		r.OK, r.Summary = false, "machines cannot run here; in the way: "+strings.Join(failed, ", ")
		return r
	}
	r.Summary = "machines can run here, " + e.how
	return r
}

// examination is one run of doctor.
type examination struct {
	Deps
	checks []api.Check

	how        string // machines run: "with KVM"
	inSoftware bool   // guests' code does not run on the processor
	status     *api.StatusResponse
}

func (e *examination) ok(name, format string, args ...any) {
	e.add(name, api.CheckOK, fmt.Sprintf(format, args...), nil)
}

// warn and fail take the commands that mend it.
func (e *examination) warn(name string, hints []string, format string, args ...any) {
	e.add(name, api.CheckWarn, fmt.Sprintf(format, args...), hints)
}

func (e *examination) fail(name string, hints []string, format string, args ...any) {
	e.add(name, api.CheckFail, fmt.Sprintf(format, args...), hints)
}

// failed is fail for an error with its own hints, and those given where it has
// none.
func (e *examination) failed(name string, err error, hints ...string) {
	if own := errkind.Hints(err); len(own) > 0 {
		hints = own
	}
	e.fail(name, hints, "%v", err)
}

// unseen tells that something is not to be seen without root.
func (e *examination) unseen(name, what string) {
	e.warn(name, []string{"banger doctor"}, "%s cannot be seen without root", what)
}

func (e *examination) add(name string, s api.CheckStatus, detail string, hints []string) {
	lines := make([]string, len(hints)) // never nil
	for i, h := range hints {
		lines[i] = e.pastable(h)
	}
	detail = strings.ReplaceAll(detail, "\n", "; ")
	e.checks = append(e.checks, api.Check{Name: name, Status: s, Detail: detail, Hints: lines})
}

// pastable makes a hint work for who reads it: who is not root needs sudo for
// all that changes or sees something.
func (e *examination) pastable(hint string) string {
	if e.Host.Root {
		return hint
	}
	parts := strings.Split(hint, " && ")
	for i, p := range parts {
		if word, _, _ := strings.Cut(p, " "); !slices.Contains([]string{"sudo", "df", "newgrp"}, word) {
			parts[i] = "sudo " + p
		}
	}
	return strings.Join(parts, " && ")
}
