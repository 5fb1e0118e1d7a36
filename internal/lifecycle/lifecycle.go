package lifecycle

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/handle"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/keylock"
	"banger/internal/network"
	"banger/internal/template"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Records is what this package needs of the store.
type Records interface {
	// Create stores a new record, with user id, vsock CID and time of
	// creation filled in.
	Create(ctx context.Context, v vm.VM) (vm.VM, error)
	Get(ctx context.Context, id vm.ID) (vm.VM, error)
	// Resolve finds a machine by name or by an unambiguous prefix of its id.
	Resolve(ctx context.Context, ref string) (vm.VM, error)
	// HasName reports whether a machine has this name.
	HasName(ctx context.Context, name string) (bool, error)
	List(ctx context.Context) ([]vm.VM, error)
	// Change checks and records one step in a machine's life.
	Change(ctx context.Context, id vm.ID, c vm.Change) (vm.VM, error)
	// Claim records that a machine that waited in the pool is a user's.
	Claim(ctx context.Context, id vm.ID, c vm.Claim) (vm.VM, error)
	// Resize records another size of a machine that is stopped.
	Resize(ctx context.Context, id vm.ID, n vm.Size) (vm.VM, error)
	// SetAutoPause records how long nobody has to use a machine for it to be
	// paused.
	SetAutoPause(ctx context.Context, id vm.ID, d time.Duration) (vm.VM, error)
	Delete(ctx context.Context, id vm.ID) error
	// Subnet is what machines get their addresses from; zero: not set yet.
	Subnet(ctx context.Context) (netip.Prefix, error)
	// SetSubnet sets it, and moves every machine's address into it.
	SetSubnet(ctx context.Context, p netip.Prefix) error
}

// DNS is what this package needs of the daemon's name server.
type DNS interface {
	// ServeGuests answers the guests of a bridge, on its address. It may be
	// called again. That it cannot is the server's to tell: machines run
	// without names.
	ServeGuests(bridge netip.Prefix)
	// Resolvers are the host's own that a guest can reach.
	Resolvers() []netip.Addr
}

// A Driver is a VMM driver with the disk layers it can use.
type Driver struct {
	vmm.Driver
	Layers disk.Layers
}

// Check returns nil if machines can be run on this host with this driver and on
// these layers, else an error of kind [errkind.Host] with a hint.
func (d Driver) Check(ctx context.Context) error {
	if err := d.Driver.Check(ctx); err != nil {
		return err
	}
	return d.Layers.Check(ctx)
}

// Deps is what a Manager stands on. All are required.
type Deps struct {
	Records   Records
	Handles   *handle.Cache
	Finder    vmm.Finder
	Drivers   map[string]Driver // by name
	Default   string            // name of the driver for a machine that names none; empty: none works here
	Work      disk.Work
	Network   network.Network
	Limits    Limits
	DNS       DNS
	Images    image.Library
	Templates template.Library
	Kernels   kernel.Library
	Boot      guest.Boot
	Dialer    guest.Dialer
	Host      Host
	Paths     config.Paths
	Config    config.Config
	Log       *slog.Logger

	KnownHosts     KnownHosts
	AuthorizedKeys []string // the public keys that machines let in, from their next start on
}

// Host tells what the host has.
type Host interface {
	CPUs() int
	// Processor is the model of the processors and what they can do.
	Processor() string
	// MemoryBytes is all the memory there is.
	MemoryBytes() int64
	// AvailableBytes is how much memory could be had without swapping.
	AvailableBytes() (int64, error)
	// DiskBytes is the size of the file system that path is on, and how much
	// of it is free.
	DiskBytes(path string) (total, free int64, err error)
	// Reserve makes the file at path hold n bytes of its file system that
	// nobody else can take then.
	Reserve(path string, n int64) error
	// Unreserve removes that file, and reports whether there was one.
	Unreserve(path string) (bool, error)
}

// Progress is told what is being done: stage, detail, and how much of total
// (0: not known) is done. It must not block.
type Progress func(stage, detail string, done, total int64)

// A Manager is the only thing that changes the state of machines. Its methods
// may be called concurrently.
type Manager struct {
	d     Deps
	log   *slog.Logger
	locks keylock.Set[vm.ID]

	restarts keylock.Set[vm.ID] // held for a whole restart; before locks

	ctx    context.Context // of everything that watches; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// parts is held for reading from the look at an image and a kernel until
	// the record names them, and for writing while one that no record names is
	// removed.
	parts sync.RWMutex

	mu   sync.Mutex
	live map[vm.ID]*live                   // guarded by mu
	ops  map[vm.ID]context.CancelCauseFunc // of starts and stops under way; guarded by mu
	// reading are those of work disks; guarded by mu
	reading map[vm.ID]map[*WorkReading]bool
	closed  bool // guarded by mu

	reserveMu sync.Mutex // held while room for records is taken or given
	reserve   bool       // it is kept; guarded by reserveMu

	making   making
	pool     pool
	net      ports
	idle     idle
	patience patience
}

// New returns a manager of no machines: [Manager.Recover] finds those that are
// there.
func New(d Deps) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		d: d, log: d.Log, ctx: ctx, cancel: cancel,
		live: make(map[vm.ID]*live), ops: make(map[vm.ID]context.CancelCauseFunc),
		reading:  make(map[vm.ID]map[*WorkReading]bool),
		net:      ports{want: make(map[vm.ID]network.Port), dirty: true},
		idle:     newIdle(time.Now),
		patience: defaultPatience,
	}
}

// Close stops watching and drops every connection. Machines go on. It waits
// for work in the background to end and may be called twice.
func (m *Manager) Close() {
	m.cancel()
	m.mu.Lock()
	m.closed = true
	ls := m.live
	m.live = make(map[vm.ID]*live)
	m.mu.Unlock()
	for _, l := range ls {
		l.close()
	}
	m.wg.Wait()
}

// background runs f until it returns; Close waits for it. After Close it does
// nothing and returns false.
func (m *Manager) background(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.wg.Go(f)
	}
	return !m.closed
}

// interruptible returns a context for work on a machine whose lock is held,
// which [Manager.interrupt] ends.
func (m *Manager) interruptible(ctx context.Context, id vm.ID) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ops[id] = cancel
	return ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.ops, id)
		cancel(nil)
	}
}

// interrupt ends the start or stop of a machine that is under way, so that
// what must happen at once does not wait for it.
func (m *Manager) interrupt(id vm.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cancel := m.ops[id]; cancel != nil {
		cancel(errInterrupted)
	}
}

// errInterrupted is why a start or stop ended that was in the way.
var errInterrupted = errkind.New(errkind.Conflict, "the machine was killed or deleted meanwhile")

// begin locks the machine and records what is about to be tried.
func (m *Manager) begin(ctx context.Context, id vm.ID, to vm.State, reason string) (v vm.VM, unlock func(), err error) {
	return m.beginIf(ctx, id, func() error { return nil }, to, reason)
}

// beginIf is begin, if may returns nil while the machine is locked.
func (m *Manager) beginIf(ctx context.Context, id vm.ID, may func() error, to vm.State, reason string) (v vm.VM, unlock func(), err error) {
	unlock, err = m.locks.Lock(ctx, id)
	if err != nil {
		return v, nil, err
	}
	if err := may(); err != nil {
		unlock()
		return v, nil, err
	}
	if v, err = m.change(ctx, id, vm.Change{To: to, Reason: reason}); err != nil {
		unlock()
		return v, nil, err
	}
	m.endReading(id)
	m.log.Info("state", "vm", id, "name", v.Name, "state", to)
	return v, unlock, nil
}

// driver returns the driver a machine was made for.
func (m *Manager) driver(name string) (Driver, error) {
	d, ok := m.d.Drivers[name]
	if !ok {
		return d, errkind.New(errkind.Host, "driver %q is not part of this build", name)
	}
	return d, nil
}

// Alive reports whether a machine runs: recorded as running or paused, and its
// process found. It is the only place that decides this.
func (m *Manager) Alive(ctx context.Context, v vm.VM) bool {
	if !v.State.Up() {
		return false
	}
	p, err := m.find(ctx, v)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

// find finds the machine's VMM process, whatever its record says.
func (m *Manager) find(ctx context.Context, v vm.VM) (vmm.Process, error) {
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return nil, err
	}
	h := m.d.Handles.Get(v.ID)
	return m.d.Finder.Find(ctx, d.Signature(m.ref(v)), vmm.Hint{PID: h.PID, StartTime: h.StartTime})
}

// findOf is find, quicker where mach (nil: there is none) tells the process.
func (m *Manager) findOf(ctx context.Context, v vm.VM, d Driver, mach vmm.Machine) (vmm.Process, error) {
	if mach == nil || mach.PID() == 0 {
		return m.find(ctx, v)
	}
	return m.d.Finder.Find(ctx, d.Signature(m.ref(v)), vmm.Hint{PID: mach.PID()})
}

// detached is a context for work that must end whoever asked for it goes away.
func (m *Manager) detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
