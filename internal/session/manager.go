package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// Records is what this package needs of the store.
type Records interface {
	// Get, Resolve and List are those of machines.
	Get(ctx context.Context, id vm.ID) (vm.VM, error)
	Resolve(ctx context.Context, ref string) (vm.VM, error)
	List(ctx context.Context) ([]vm.VM, error)

	// CreateSession stores a new record, with its time of creation filled in.
	// A name that the machine has a session of is [errkind.Conflict].
	CreateSession(ctx context.Context, s Session) (Session, error)
	// ResolveSession finds a session of a machine by its name or the beginning
	// of its id.
	ResolveSession(ctx context.Context, machine vm.ID, ref string) (Session, error)
	// Sessions returns those of a machine (empty: of all), in the order of
	// their creation.
	Sessions(ctx context.Context, machine vm.ID) ([]Session, error)
	// ChangeSessions records what was seen, all of it or nothing, and returns
	// the records of those that there still are.
	ChangeSessions(ctx context.Context, changes []Change) ([]Session, error)
	// DeleteSession removes a record. It succeeds if there is none.
	DeleteSession(ctx context.Context, id ID) error
}

// Machines is what this package needs of machines that are up; see
// lifecycle.Manager.
type Machines interface {
	// Agent returns the shared connection to the agent of a machine.
	// [errkind.Conflict]: it does not run, or is paused.
	Agent(ctx context.Context, id vm.ID) (guest.Agent, error)
	// Use notes that somebody uses a machine, until done is called: it is not
	// paused for being idle meanwhile. To be called before Agent.
	Use(id vm.ID) (done func())
	// Gone is closed when the machine's process has ended; nil if it has.
	Gone(id vm.ID) <-chan struct{}
	// EndOf returns why a machine ended whose process has gone.
	EndOf(ctx context.Context, id vm.ID) string
	// Notices tells what there is to tell of a machine, until stop is called.
	// As long as somebody listens, an agent that falls silent is noticed, and
	// its calls are broken off.
	Notices(id vm.ID) (lines <-chan string, stop func())
}

// Disks reads what sessions left on the work disks of machines that are
// stopped. A machine was seen stopped before each call; whoever implements this
// keeps it from being started meanwhile, or reads what does not change. What is
// on such a disk is as hostile as its guest.
type Disks interface {
	// Status returns what the status file of a session says. An error that is
	// [fs.ErrNotExist] says that there is none.
	Status(ctx context.Context, machine vm.ID, id ID) (*wire.SessionStatus, error)
	// Logs gives emit what is kept of a session's streams, as the agent's
	// SessionLogs would; there is nothing to follow. The first error of emit
	// ends it and is returned. [fs.ErrNotExist]: there are no logs.
	Logs(ctx context.Context, machine vm.ID, id ID, r *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error
}

// Deps is what a Manager stands on. All but Now are required.
type Deps struct {
	Records  Records
	Machines Machines
	Disks    Disks
	LogLimit int64            // of each stream of a session that says nothing, in bytes
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger
}

// patience is how long a guest is waited for.
type patience struct {
	look  time.Duration // to tell where sessions stand, so that a list never hangs
	disk  time.Duration // to read where they stood
	start time.Duration // to start one
	act   time.Duration // to do anything else, beside what was asked to be waited
}

var defaultPatience = patience{look: 5 * time.Second, disk: 20 * time.Second, start: time.Minute, act: 20 * time.Second}

// A Manager starts sessions and whatever is done with them. Its methods may be
// called concurrently.
type Manager struct {
	d   Deps
	log *slog.Logger

	ctx      context.Context // of what outlives its caller; ended by Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	patience patience

	mu       sync.Mutex
	starting map[ID]bool         // starts under way; guarded by mu
	swept    map[vm.ID]time.Time // machines that were looked through, by their last start; guarded by mu
	closed   bool                // guarded by mu
}

// New returns a manager of the sessions that are in the store.
func New(d Deps) *Manager {
	if d.Now == nil {
		d.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		d: d, log: d.Log, ctx: ctx, cancel: cancel, patience: defaultPatience,
		starting: make(map[ID]bool), swept: make(map[vm.ID]time.Time),
	}
}

// Close ends what goes on without a caller, and waits for it. Sessions go on.
// It may be called twice.
func (m *Manager) Close() {
	m.cancel()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wg.Wait()
}

// background runs f; Close waits for it. After Close it does nothing.
func (m *Manager) background(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.wg.Go(f)
	}
}

// detached is a context for what goes on when its caller goes away. It ends
// after d, and with the daemon.
func (m *Manager) detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), d,
		errkind.New(errkind.Timeout, "the guest did not answer within %s", d))
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (m *Manager) now() time.Time { return m.d.Now().UTC().Round(0) }

// begin marks that a session is being started, until the function that it
// returns is called.
func (m *Manager) begin(id ID) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starting[id] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.starting, id)
	}
}

// beingStarted are the starts that are under way.
func (m *Manager) beingStarted() map[ID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make(map[ID]bool, len(m.starting))
	for id := range m.starting {
		ids[id] = true
	}
	return ids
}
