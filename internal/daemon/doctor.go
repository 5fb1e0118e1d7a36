package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/cgroup"
	"banger/internal/config"
	"banger/internal/doctor"
	"banger/internal/hostcmd"
	"banger/internal/network/linux"
	"banger/internal/store"
	"banger/internal/version"
	"banger/internal/vm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
)

// askLimit is how long a daemon may take for an answer.
const askLimit = 3 * time.Second

// DoctorOptions is what doctor is to look at.
type DoctorOptions struct {
	Paths  config.Paths
	Client string // version of the banger that asks; empty: not known
}

// Doctor tells whether machines can run here, with the mechanisms that a daemon
// of these places would have. It takes nothing, needs no root, and changes
// nothing.
func Doctor(ctx context.Context, o DoctorOptions) *api.Doctor {
	conf, confErr := config.Load(o.Paths.Config)
	if confErr != nil {
		conf = config.Default() // the rest is looked at all the same
	}
	if conf.Cache != "" {
		o.Paths.Cache = conf.Cache
	}
	uids := vm.UIDRange{Base: o.Paths.UIDBase(conf), Count: conf.UIDs}
	q := qemu.New(qemu.Options{})
	d := doctor.Deps{
		Version: version.Version, Client: o.Client, Built: built(version.Date),
		Paths: o.Paths, ConfigErr: confErr,
		Host:    lookAtHost(o.Paths, uids),
		TSCRate: q.TSCRate,
		Network: linux.New(linux.Options{Tag: o.Paths.Tag, Root: o.Paths.State, Log: slog.New(slog.DiscardHandler)}),
		Look:    hostcmd.Look,
		Records: func(ctx context.Context) ([]vm.VM, error) { return readRecords(ctx, o.Paths.Database()) },
		Again:   func() ([]doctor.Process, []string, error) { return leftNow(o.Paths, uids) },
		Ping:    func(ctx context.Context) error { return pingDaemon(ctx, o.Paths.Socket()) },
		Status: func(ctx context.Context) (*api.StatusResponse, error) {
			return askDaemon(ctx, o.Paths.Socket())
		},
		LockHolder: func() (int, bool) { return client.LockHolder(o.Paths) },
	}
	_, statErr := os.Stat(o.Paths.Config)
	d.HasConfig = statErr == nil
	_, d.AgentErr = agentBinary()
	d.LimitsErr = cgroup.Check()
	m := Mechanisms{Drivers: drivers(o.Paths)}
	if d.DriverErr = chooseDriver(&m, conf.Driver); d.DriverErr == nil {
		d.Driver = m.Drivers[m.DefaultDriver]
	}
	if conf.Driver == "auto" && m.DefaultDriver != firecracker.Name {
		d.Better = m.Drivers[firecracker.Name]
	}
	return doctor.Run(ctx, d)
}

// readRecords reads the database without changing it.
func readRecords(ctx context.Context, path string) (vms []vm.VM, err error) {
	s, err := store.OpenReadOnly(path)
	if errors.Is(err, store.ErrOlder) {
		return nil, fmt.Errorf("%w: %w", doctor.ErrOlder, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.List(ctx)
}

// pingDaemon returns nil if a daemon serves at socket; it waits for none to come
// up.
func pingDaemon(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c := client.New(socket)
	defer c.Close()
	return c.Ping(ctx)
}

// askDaemon asks the daemon that serves at socket for its status.
func askDaemon(ctx context.Context, socket string) (*api.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c := client.New(socket)
	defer c.Close()
	st, err := c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return st.Msg, nil
}

// built reads the date of the build; one that is none is not known.
func built(date string) time.Time {
	t, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return time.Time{}
	}
	return t
}

func isRoot() bool { return os.Geteuid() == 0 }
