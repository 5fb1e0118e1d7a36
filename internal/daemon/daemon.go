package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/server"
	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/handle"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/session"
	"banger/internal/sshkey"
	"banger/internal/store"
	"banger/internal/template/templatefs"
	"banger/internal/version"
	"banger/internal/vm"
	"banger/internal/vmm"
)

const (
	// recoverTime is how long recovery may keep the socket closed.
	recoverTime = 10 * time.Second
	// quickTime is how long the daemon, when it ends, waits for calls to end
	// by themselves.
	quickTime = 300 * time.Millisecond
	// stopTime is how long the handlers of calls that were broken off may
	// take.
	stopTime = 10 * time.Second
	// socketEvery, trimEvery, pruneEvery and keepEvery are how often the daemon's socket,
	// console logs, templates and the network are looked at; askEvery, how often VMMs and
	// agents are asked whether they answer; idleEvery, how often machines are looked for
	// that nobody uses.
	socketEvery = time.Second
	idleEvery   = time.Second
	trimEvery   = 5 * time.Second
	pruneEvery  = 5 * time.Minute
	keepEvery   = 3 * time.Second
	askEvery    = 5 * time.Second
)

// Mechanisms are what stands behind the contracts. [Real] gives those of the
// real host; a test gives fakes.
type Mechanisms struct {
	Drivers       map[string]lifecycle.Driver
	DefaultDriver string // empty: none works here
	DriverReason  string // why that one
	Finder        vmm.Finder
	Work          disk.Work
	Network       network.Network
	Limits        Limits
	Names         NameServer
	Images        image.Library
	Kernels       kernel.Library
	Boot          guest.Boot
	Dialer        guest.Dialer
	Host          lifecycle.Host
}

// Limits are what VMMs' memory and processes are bounded by.
type Limits interface {
	lifecycle.Limits
	// Err is why machines run without; nil: they have limits.
	Err() error
}

// noLimits is what is the matter where Limits has an error.
const noLimits = "machines run without limits on memory and processes: "

// Options is how to run a daemon. All but SudoUID are required.
type Options struct {
	Paths      config.Paths
	Config     config.Config
	Mechanisms func(config.Paths, config.Config, *slog.Logger) (Mechanisms, error)
	SudoUID    string // of who started it with sudo, or empty
	Log        *slog.Logger
}

// A Daemon is one that was opened and not yet closed.
type Daemon struct {
	o       Options
	lock    *os.File
	store   *store.Store
	names   NameServer
	manager *lifecycle.Manager
	session *session.Manager
	server  *http.Server
	ln      net.Listener
	who     owner // may use the socket

	calls    sync.WaitGroup // being answered
	stopOnce sync.Once
	stopping chan struct{} // closed when its end was asked for
}

// Open takes the root, brings records and host into agreement, and opens the
// socket. The error is [ErrLocked] if another daemon has the root. On any
// error nothing is left open.
func Open(ctx context.Context, o Options) (_ *Daemon, err error) {
	if o.Config.Cache != "" {
		o.Paths.Cache = o.Config.Cache
	}
	d := &Daemon{o: o, stopping: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := makeDir(o.Paths.State, 0o711); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if d.lock, err = lock(o.Paths.Lock()); err != nil {
		return nil, err
	}
	who := findOwner(lookupGroup, o.SudoUID)
	d.who = who
	if err := makePlaces(o.Paths, who); err != nil {
		return nil, err
	}
	for _, dir := range []string{o.Paths.State, o.Paths.Cache} {
		if err := checkPassable(dir); err != nil {
			return nil, err
		}
	}
	if d.store, err = store.Open(o.Paths.Database(), store.Options{
		Now:  time.Now,
		UIDs: vm.UIDRange{Base: o.Paths.UIDBase(o.Config), Count: o.Config.UIDs},
	}); err != nil {
		return nil, err
	}
	sshKeys, err := d.sshKeys(who)
	if err != nil {
		return nil, err
	}
	mech, err := o.Mechanisms(o.Paths, o.Config, o.Log)
	if err != nil {
		return nil, err
	}
	templates, err := templatefs.Open(o.Paths.Templates())
	if err != nil {
		return nil, err
	}
	d.manager = lifecycle.New(lifecycle.Deps{
		Records: d.store,
		Handles: handle.NewCache(func(id vm.ID) string { return o.Paths.VM(string(id)).Handles() }),
		Finder:  mech.Finder, Drivers: mech.Drivers, Default: mech.DefaultDriver,
		Work: mech.Work, Network: mech.Network, Limits: mech.Limits, DNS: mech.Names, Images: mech.Images, Kernels: mech.Kernels,
		Templates: templates,
		Boot:      mech.Boot, Dialer: mech.Dialer, Host: mech.Host,
		Paths: o.Paths, Config: o.Config, Log: o.Log,
		KnownHosts: sshkey.NewKnownHosts(o.Paths.KnownHosts()), AuthorizedKeys: sshKeys,
	})
	d.session = session.New(session.Deps{
		Records: d.store, Machines: d.manager, Disks: session.OnDisk{Open: d.readWork},
		LogLimit: int64(o.Config.SessionLog), Log: o.Log,
	})
	d.names = mech.Names
	dnsAddr := d.names.Open(d.manager)
	if err := d.manager.Recover(ctx, recoverTime); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	d.server = d.newServer(mech, dnsAddr)
	if d.ln, err = listen(o.Paths.Socket(), who); err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	return d, nil
}

// readWork opens the work disk of a machine that does not run.
func (d *Daemon) readWork(ctx context.Context, id vm.ID) (session.Work, error) {
	r, err := d.manager.ReadWork(ctx, id)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (d *Daemon) newServer(mech Mechanisms, dnsAddr string) *http.Server {
	h := server.Handler(server.Deps{
		Machines: d.manager, Sessions: d.session, Images: mech.Images, Kernels: mech.Kernels,
		Info: server.Info{
			PID: os.Getpid(), Version: version.Version, Root: d.o.Paths.Root, Socket: d.o.Paths.Socket(),
			Driver: mech.DefaultDriver, DriverReason: mech.DriverReason, StartedAt: time.Now(),
			DNSAddr: dnsAddr, Warnings: func(ctx context.Context) []string { return warnings(ctx, mech) },
			VMM:         func(ctx context.Context) (string, bool) { return tellVMM(ctx, mech) },
			SSHIdentity: d.o.Paths.SSHIdentity(), KnownHosts: d.o.Paths.KnownHosts(),
		},
		Log: d.o.Log, Shutdown: d.Stop,
	}, connect.WithInterceptors(api.NewServerInterceptor(d.logInternal)))
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:   d.counted(h),
		Protocols: &p,
		ErrorLog:  slog.NewLogLogger(d.o.Log.Handler(), slog.LevelWarn), // a handler's panic
	}
}

// tellVMM tells of the driver of machines that name none.
func tellVMM(ctx context.Context, mech Mechanisms) (version string, accelerated bool) {
	drv, ok := mech.Drivers[mech.DefaultDriver]
	if !ok {
		return "", false
	}
	version, err := drv.Version(ctx)
	if err != nil {
		return "", false
	}
	return version, drv.Capabilities().Accelerated
}

// warnTime is how long whoever asks for the daemon's status waits for what
// firewalls there are, which may be many, and another daemon at work on the
// network.
const warnTime = time.Second

// warnings tells what is not as it should be, though machines can run.
func warnings(ctx context.Context, mech Mechanisms) []string {
	list := mech.Names.Warnings()
	if err := mech.Limits.Err(); err != nil {
		list = append(list, noLimits+err.Error())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, warnTime, fmt.Errorf("that takes longer than %s", warnTime))
	defer cancel()
	obstacles, err := mech.Network.Obstacles(ctx)
	if err != nil {
		return append(list, "firewalls were not looked at: "+err.Error())
	}
	for _, o := range obstacles {
		list = append(list, o.Advice())
	}
	return list
}

// logInternal logs the errors that are a fault of ours or of the host: the
// others are told to whoever asked, and are nobody else's news.
func (d *Daemon) logInternal(call string, err error) {
	if errkind.Of(err) == errkind.Internal {
		d.o.Log.Error("call", "call", call, "err", err)
	}
}

// Serve answers calls until Stop is called or ctx ends.
func (d *Daemon) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { again(ctx, d.manager.CheckRoom) })
	wg.Go(func() { every(ctx, socketEvery, d.keepSocket) })
	wg.Go(func() { every(ctx, askEvery, d.manager.AskWhoAnswers) })
	wg.Go(func() { every(ctx, idleEvery, func() { d.manager.PauseIdle(ctx) }) })
	wg.Go(func() { every(ctx, trimEvery, d.manager.TrimLogs) })
	wg.Go(func() { every(ctx, pruneEvery, func() { d.manager.PruneTemplatesAsConfigured(ctx) }) })
	wg.Go(func() { every(ctx, trimEvery, d.manager.TrimPool) })
	wg.Go(func() { every(ctx, keepEvery, func() { d.manager.KeepNetwork(ctx) }) })
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(d.ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-d.stopping:
	case <-ctx.Done():
	}
	return nil
}

// keepSocket opens the socket anew if somebody has removed it: nobody could
// reach the daemon, and none could take its place.
func (d *Daemon) keepSocket() {
	path := d.o.Paths.Socket()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return
	}
	d.o.Log.Warn("the socket was removed; opening it anew", "socket", path)
	err := makePlaces(d.o.Paths, d.who)
	var ln net.Listener
	if err == nil {
		ln, err = listen(path, d.who)
	}
	if err != nil {
		d.o.Log.Warn("open the socket anew", "err", err)
		return
	}
	go func() { _ = d.server.Serve(ln) }() // until the server ends
}

// every calls f from time to time until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// again calls f, and each time after as long as that has returned, until ctx
// ends.
func again(ctx context.Context, f func() time.Duration) {
	for {
		timer := time.NewTimer(f())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Stop makes Serve return. It may be called twice, and from anywhere.
func (d *Daemon) Stop() { d.stopOnce.Do(func() { close(d.stopping) }) }

// Close ends the daemon, in the reverse of Open: it takes no more calls, lets
// those that are being answered end, and gives up the root. Machines go on.
// It may be called after a failed Open.
func (d *Daemon) Close() error {
	var errs []error
	if d.ln != nil {
		// Gone first, so that a client starts a new daemon, not this one.
		errs = append(errs, ignore(os.Remove(d.o.Paths.Socket()), os.ErrNotExist))
	}
	if d.server != nil {
		errs = append(errs, d.endCalls())
	}
	if d.session != nil {
		d.session.Close()
	}
	if d.manager != nil {
		errs = append(errs, d.drainPool())
		d.manager.Close()
	}
	if d.names != nil {
		errs = append(errs, d.names.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.removePlaces(), d.lock.Close())
	}
	return errors.Join(errs...)
}

// drainPool deletes the machines that wait for users: nobody can claim them until
// the next daemon.
func (d *Daemon) drainPool() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	_, err := d.manager.DrainPool(ctx)
	return err
}

// counted keeps count of the calls that are being answered: breaking off a
// connection does not end its handler, which may have a machine to delete.
func (d *Daemon) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.calls.Add(1)
		defer d.calls.Done()
		h.ServeHTTP(w, r)
	})
}

// endCalls lets calls that end by themselves do so, then breaks the others
// off (an exec does not end because the daemon does) and waits until their
// handlers have dealt with that.
func (d *Daemon) endCalls() error {
	grace, cancel := context.WithTimeout(context.Background(), quickTime)
	defer cancel()
	err := d.server.Shutdown(grace)
	if err != nil {
		err = d.server.Close()
	}
	done := make(chan struct{})
	go func() { d.calls.Wait(); close(done) }()
	select {
	case <-done:
		return err
	case <-time.After(stopTime):
	}
	// What still goes on is the start of a persistent machine: it is left as
	// a crash would leave it, for the next daemon to go on with; or of a
	// session, which the next one finds.
	d.session.Close()
	d.manager.Close()
	select {
	case <-done:
	case <-time.After(stopTime):
		d.o.Log.Warn("calls did not end", "after", 2*stopTime)
	}
	return err
}

// removePlaces removes the directories of the run that hold nothing any more.
func (d *Daemon) removePlaces() error {
	p := d.o.Paths
	for _, dir := range []string{p.SocketDir(), p.VMRuns(), p.Run} {
		if os.Remove(dir) != nil {
			return nil // machines still run: their sockets are in there
		}
	}
	return nil
}

func ignore(err, none error) error {
	if errors.Is(err, none) {
		return nil
	}
	return err
}
