package session_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/session"
	"banger/internal/session/sessiontest"
	"banger/internal/store"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// unimplemented is what an agent without sessions answers.
var unimplemented = connect.NewError(connect.CodeUnimplemented, errBoom)

// A bed is a daemon's life, with a machine "web" that runs.
type bed struct {
	*session.Manager
	t        *testing.T
	path     string
	store    *store.Store
	machines *machines
	disks    *disks
	web      vm.VM

	mu   sync.Mutex
	fail func(method string) error // of the store; guarded by mu
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, path: filepath.Join(t.TempDir(), "banger.db"), disks: &disks{}}
	b.machines = &machines{t: t, b: b, used: make(map[vm.ID]int), guests: make(map[vm.ID]*sessiontest.Guest), gone: make(map[vm.ID]chan struct{})}
	b.open()
	b.web = b.machine("web")
	t.Cleanup(b.close)
	return b
}

func (b *bed) open() {
	b.t.Helper()
	var err error
	b.store, err = store.Open(b.path, store.Options{UIDs: vm.UIDRange{Base: 5000, Count: 100}, TestOnlyFail: func(method string) error {
		b.mu.Lock()
		fail := b.fail
		b.mu.Unlock()
		if fail == nil {
			return nil
		}
		return fail(method) // which may set what fails from then on
	}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Manager = session.New(session.Deps{
		Records: b.store, Machines: b.machines, Disks: b.disks, LogLimit: 64 << 20, Log: slog.New(slog.DiscardHandler),
	})
}

// close ends the daemon's life. By then nothing uses a machine.
func (b *bed) close() {
	b.t.Helper()
	b.Close()
	for id, n := range b.machines.used {
		if n != 0 {
			b.t.Errorf("machine %s is used %d times in the end", id, n)
		}
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

// restart begins the next daemon's life.
func (b *bed) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

func (b *bed) setFail(f func(string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = f
}

// machine makes a machine that runs.
func (b *bed) machine(name string) vm.VM {
	b.t.Helper()
	v, err := b.store.Create(b.t.Context(), vm.VM{Name: name, Spec: vm.Spec{VCPUs: 1, MemoryBytes: 1, DiskBytes: 1, Network: "none"}})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.up(v)
}

// up starts a machine; what its sessions were is gone, unless it is put there.
func (b *bed) up(v vm.VM) vm.VM {
	b.t.Helper()
	b.state(v, vm.Starting)
	b.machines.set(v.ID, sessiontest.New(b.t))
	return b.state(v, vm.Running)
}

// down stops a machine.
func (b *bed) down(v vm.VM) {
	b.t.Helper()
	b.state(v, vm.Stopping)
	b.machines.end(v.ID)
	b.state(v, vm.Stopped)
}

func (b *bed) state(v vm.VM, to vm.State) vm.VM {
	b.t.Helper()
	v, err := b.store.Change(b.t.Context(), v.ID, vm.Change{To: to, Started: to == vm.Running})
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *bed) guest() *sessiontest.Guest { return b.machines.guest(b.web.ID) }

// start starts a session in web that runs.
func (b *bed) start(name, stdin string, tags ...string) session.Session {
	b.t.Helper()
	s, err := b.Start(b.t.Context(), "web", session.Request{Name: name, Argv: []string{"cat", "-u"}, Stdin: stdin, Tags: tags})
	if err != nil || s.Status != session.Running {
		b.t.Fatalf("start %s: %+v, %v", name, s, err)
	}
	return s
}

// show returns a session of web, brought up to date.
func (b *bed) show(ref string) session.Session {
	b.t.Helper()
	s, err := b.Show(b.t.Context(), "web", ref)
	if err != nil {
		b.t.Fatalf("show %s: %v", ref, err)
	}
	return s
}

// recorded returns a session of web as it is recorded.
func (b *bed) recorded(name string) session.Session {
	b.t.Helper()
	s, err := b.store.ResolveSession(b.t.Context(), b.web.ID, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// send sends texts to a session of web.
func (b *bed) send(ref string, eof bool, texts ...string) (session.Sent, error) {
	return b.Send(b.t.Context(), "web", ref, session.Input{EOF: eof, Next: func() ([]byte, error) {
		if len(texts) == 0 {
			return nil, io.EOF
		}
		text := texts[0]
		texts = texts[1:]
		return []byte(text), nil
	}})
}

// refused reports an error that is not of kind k with this text, or has not
// this hint, of those that there are.
func refused(t *testing.T, err error, k errkind.Kind, text, hint string) {
	t.Helper()
	if err == nil || errkind.Of(err) != k || err.Error() != text {
		t.Errorf("error %v of kind %q, want %q of kind %q", err, errkind.Of(err), text, k)
	}
	if got := strings.Join(errkind.Hints(err), "|"); got != hint {
		t.Errorf("hints of %v: %q, want %q", err, got, hint)
	}
}

// machines are those that are up, by their guests.
type machines struct {
	t *testing.T
	b *bed

	mu     sync.Mutex
	guests map[vm.ID]*sessiontest.Guest // guarded by mu
	gone   map[vm.ID]chan struct{}      // guarded by mu
	err    error                        // of reaching any agent; guarded by mu
	used   map[vm.ID]int                // by how many; guarded by mu
}

func (m *machines) set(id vm.ID, g *sessiontest.Guest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guests[id], m.gone[id] = g, make(chan struct{})
}

// end ends a machine's process.
func (m *machines) end(id vm.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.gone[id])
	m.guests[id].Break()
	delete(m.guests, id)
	delete(m.gone, id)
}

func (m *machines) setErr(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *machines) guest(id vm.ID) *sessiontest.Guest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guests[id]
}

func (m *machines) Agent(ctx context.Context, id vm.ID) (guest.Agent, error) {
	m.mu.Lock()
	g, err := m.guests[id], m.err
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	v, err := m.b.store.Get(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case v.State == vm.Paused:
		return nil, errkind.New(errkind.Conflict, "machine %q is paused", v.Name)
	case v.State != vm.Running || g == nil:
		return nil, errkind.New(errkind.Conflict, "machine %q is not running (%s)", v.Name, v.State)
	}
	return g.Agent(m.t), nil
}

func (m *machines) Gone(id vm.ID) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone[id]
}

func (m *machines) Use(id vm.ID) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[id]++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.used[id]--
	})
}

func (m *machines) EndOf(context.Context, vm.ID) string { return "it was unplugged" }

func (m *machines) Notices(vm.ID) (<-chan string, func()) { return nil, func() {} }

// disks hold what sessions left.
type disks struct {
	status map[session.ID]*wire.SessionStatus
	logs   map[session.ID]string // of stdout
	err    error
	wait   bool // until ctx ends
}

func (d *disks) Status(ctx context.Context, _ vm.ID, id session.ID) (*wire.SessionStatus, error) {
	if d.wait {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if st := d.status[id]; st != nil || d.err != nil {
		return st, d.err
	}
	return nil, fs.ErrNotExist
}

func (d *disks) Logs(_ context.Context, _ vm.ID, id session.ID, r *wire.SessionLogsRequest, emit func(*wire.SessionLogsResponse) error) error {
	text, ok := d.logs[id]
	if !ok {
		return fs.ErrNotExist
	}
	return emit(&wire.SessionLogsResponse{Stream: r.Streams[0], Data: []byte(text)})
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not happen", what)
		}
	}
}
