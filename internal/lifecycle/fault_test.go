package lifecycle_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/config"
	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/handle"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/sshkey"
	"banger/internal/store"
	"banger/internal/template/templatefs"
	"banger/internal/vm"
)

var errBoom = errors.New("boom")

func nobody(string, string, int64, int64) {}

// A tester is a [testing.T] or a [rapid.T].
type tester interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// A life is one daemon's time on a world.
type life struct {
	t     tester
	w     *daemontest.World
	paths config.Paths
	*lifecycle.Manager
	store *store.Store

	failStore func(method string) error // of the store that is opened next; may be nil
	templates bool                      // of the daemon that is opened next
	pool      int                       // the same
	autoPause time.Duration             // the same, of machines that say nothing
	clock     clock                     // by which machines are idle
	sessions  sessions                  // that guests tell of
}

func newLife(t *testing.T) *life {
	t.Helper()
	l := &life{t: t, w: daemontest.NewWorld(t), paths: daemontest.NewPaths(t)}
	for _, dir := range []string{l.paths.State, l.paths.VMs(), l.paths.Run, l.paths.VMRuns()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.paths.Database(), freshDatabase(), 0o600); err != nil {
		t.Fatal(err)
	}
	l.open()
	t.Cleanup(l.close)
	return l
}

// freshDatabase is a database in which nothing is recorded yet. Making one for each
// life would take most of the tests' time.
var freshDatabase = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "banger-db-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "banger.db")
	s, err := store.Open(path, store.Options{UIDs: vm.UIDRange{Base: 1, Count: 1}})
	if err == nil {
		err = s.Close()
	}
	text, rerr := os.ReadFile(path)
	if err := errors.Join(err, rerr); err != nil {
		panic(err)
	}
	return text
})

// open begins the next daemon's time, without recovery.
func (l *life) open() {
	l.t.Helper()
	conf := daemontest.Config()
	conf.Boot = config.Dur(5 * time.Second)
	conf.Templates, conf.Pool = l.templates, l.pool
	conf.AutoPause = config.Dur(l.autoPause)
	var err error
	l.store, err = store.Open(l.paths.Database(), store.Options{Now: time.Now, UIDs: vm.UIDRange{Base: l.paths.UIDBase(conf), Count: conf.UIDs}, TestOnlyFail: l.failStore})
	if err != nil {
		l.t.Fatal(err)
	}
	mech, err := l.w.Mechanisms(l.paths, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	templates, err := templatefs.Open(l.paths.Templates())
	if err != nil {
		l.t.Fatal(err)
	}
	l.Manager = lifecycle.New(lifecycle.Deps{
		Records: l.store,
		Handles: handle.NewCache(func(id vm.ID) string { return l.paths.VM(string(id)).Handles() }),
		Finder:  mech.Finder, Drivers: mech.Drivers, Default: mech.DefaultDriver,
		Work: mech.Work, Network: mech.Network, Limits: mech.Limits, DNS: mech.Names, Images: mech.Images, Kernels: mech.Kernels, Templates: templates,
		Boot: mech.Boot, Dialer: sessionDialer{mech.Dialer, &l.sessions}, Host: mech.Host,
		Paths: l.paths, Config: conf, Log: slog.New(slog.DiscardHandler),
		KnownHosts: sshkey.NewKnownHosts(filepath.Join(l.paths.State, "known_hosts")),
	})
	l.SetQuiet(0)
	l.SetNow(l.clock.now)
}

// close ends a daemon's time as a kill does: what it holds is gone, nothing is
// tidied up.
func (l *life) close() {
	l.Manager.Close()
	if err := l.store.Close(); err != nil {
		l.t.Error(err)
	}
}

// restart begins the next daemon's time, with recovery.
func (l *life) restart() {
	l.t.Helper()
	l.close()
	l.open()
	if err := l.Recover(context.Background(), time.Minute); err != nil {
		l.t.Fatalf("recover: %v", err)
	}
}

func (l *life) create(name string, ephemeral bool) vm.VM {
	l.t.Helper()
	v, err := l.Create(context.Background(), lifecycle.Request{Name: name, Ephemeral: ephemeral}, nobody)
	if err != nil {
		l.t.Fatalf("create %s: %v", name, err)
	}
	return v
}

func (l *life) record(id vm.ID) vm.VM {
	l.t.Helper()
	v, err := l.store.Get(context.Background(), id)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

// running lists what runs on the host of a machine: its process and what only
// a running machine has in the file system.
func (l *life) running(v vm.VM) []string {
	l.t.Helper()
	var found []string
	if slices.Contains(l.w.VMM.Processes(), string(v.ID)) {
		found = append(found, "process")
	}
	for _, link := range l.w.Net.Links() {
		if link.Name == network.TapName(l.paths.Tag, string(v.ID)) {
			found = append(found, "tap")
		}
	}
	p := l.paths.VM(string(v.ID))
	for _, path := range []string{p.Run, p.Handles(), l.w.Limits.Path(string(v.ID)), p.Initrd(), filepath.Join(p.Dir, "root.layer.attached")} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, filepath.Base(path))
		}
	}
	return found
}

// agrees checks that record and host tell the same of a machine.
func (l *life) agrees(after string, v vm.VM) vm.VM {
	l.t.Helper()
	got, err := l.store.Get(context.Background(), v.ID)
	if errkind.Of(err) == errkind.NotFound {
		left := l.running(v)
		if _, err := os.Lstat(l.paths.VM(string(v.ID)).Dir); err == nil {
			left = append(left, "directory")
		}
		if len(left) > 0 {
			l.t.Errorf("%s: no record, but there is %v", after, left)
		}
		return vm.VM{}
	}
	if err != nil {
		l.t.Fatal(err)
	}
	left, want := l.running(v), 7
	if s, _ := l.w.VMM.Spec(string(v.ID)); s.Restore != nil {
		want-- // it did not boot
	}
	switch {
	case got.State == vm.Running && len(left) != want:
		l.t.Errorf("%s: running, but there is only %v", after, left)
	case got.State != vm.Running && len(left) != 0:
		l.t.Errorf("%s: %s, but there is %v", after, got.State, left)
	case got.State.Unfinished():
		l.t.Errorf("%s: the record says %s", after, got.State)
	}
	if got.State == vm.Running {
		if _, err := l.Agent(context.Background(), v.ID); err != nil {
			l.t.Errorf("%s: running, but %v", after, err)
		}
	}
	return got
}

// points runs op once on a host where nothing fails and returns every point at
// which something could have. That a VMM is asked for its status is not one:
// whoever watches the machine does that, in its own time.
func (l *life) points(op func()) []string {
	var mu sync.Mutex
	var seen []string
	l.w.SetFail(func(p string) error {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(seen, p) && !strings.HasSuffix(p, " status") {
			seen = append(seen, p)
		}
		return nil
	})
	defer l.w.SetFail(nil)
	op()
	return seen
}

// once returns a fault that does f the first time that point is reached.
func once(point string, f func() error) func(string) error {
	var o sync.Once
	return func(at string) (err error) {
		if at == point {
			o.Do(func() { err = f() })
		}
		return err
	}
}

// crash runs op, in which the daemon dies at point. Deferred functions run, as
// they do not under a kill: what must hold then is tested with real machines.
func (l *life) crash(point string, op func()) {
	l.w.SetFail(once(point, func() error { runtime.Goexit(); return nil }))
	defer l.w.SetFail(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		op()
	}()
	<-done
}

func startPoints(t *testing.T) []string {
	l := newLife(t)
	v := l.create("web", false)
	ps := l.points(func() {
		if _, err := l.Start(context.Background(), v.ID, nobody); err != nil {
			t.Fatal(err)
		}
	})
	if len(ps) < 12 {
		t.Fatalf("starting passes only %q", ps)
	}
	return ps
}

// noObstacle reports whether a machine runs though it failed at a point: without
// limits.
func noObstacle(point string) bool { return strings.HasSuffix(point, " limit") }

func TestStartFailsAtEveryPoint(t *testing.T) {
	for _, p := range startPoints(t) {
		t.Run(p, func(t *testing.T) {
			l := newLife(t)
			v := l.create("web", false)
			l.w.SetFail(once(p, func() error { return errBoom }))
			_, err := l.Start(context.Background(), v.ID, nobody)
			l.w.SetFail(nil)
			if noObstacle(p) {
				if left := l.running(v); err != nil || len(left) != 6 {
					t.Errorf("Start without limits = %v; there is %v", err, left)
				}
				return
			}
			if !errors.Is(err, errBoom) {
				t.Fatalf("Start = %v, want boom", err)
			}
			got := l.agrees("after the failure", v)
			refused := strings.Contains(p, "check") // before anything began
			if !refused && (got.State != vm.Stopped || !strings.Contains(got.LastError, "boom")) {
				t.Errorf("recorded %s, last error %q", got.State, got.LastError)
			}
			if _, err := l.Start(context.Background(), v.ID, nobody); err != nil {
				t.Errorf("the next start: %v", err)
			}
			if got := l.agrees("after the next start", v); got.State != vm.Running || got.LastError != "" {
				t.Errorf("recorded %s, last error %q", got.State, got.LastError)
			}
		})
	}
}

func TestDaemonDiesAtEveryPointOfStart(t *testing.T) {
	for _, p := range startPoints(t) {
		t.Run(p, func(t *testing.T) {
			for _, ephemeral := range []bool{false, true} {
				l := newLife(t)
				v := l.create("web", ephemeral)
				l.crash(p, func() { _, _ = l.Start(context.Background(), v.ID, nobody) })
				l.restart()
				got := l.agrees("after recovery", v)
				if ephemeral {
					if got.ID != "" {
						t.Errorf("the ephemeral machine is %s", got.State)
					}
					continue
				}
				if got.State == vm.Stopped && got.StateReason == "" {
					t.Error("stopped without a reason")
				}
				if _, err := l.Delete(context.Background(), v.ID); err != nil {
					t.Errorf("delete: %v", err)
				}
				l.agrees("after delete", v)
			}
		})
	}
}

// Taking down is the same undos, whoever asked.
func TestDaemonDiesAtEveryPointOfTakingDown(t *testing.T) {
	ops := map[string]func(*life, vm.ID) error{
		"stop":   func(l *life, id vm.ID) error { _, err := l.Stop(context.Background(), id, time.Second); return err },
		"kill":   func(l *life, id vm.ID) error { _, err := l.Kill(context.Background(), id); return err },
		"delete": func(l *life, id vm.ID) error { _, err := l.Delete(context.Background(), id); return err },
	}
	for name, op := range ops {
		probe := newLife(t)
		pv := probe.create("web", false)
		mustStart(t, probe, pv)
		for _, p := range probe.points(func() {
			if err := op(probe, pv.ID); err != nil {
				t.Fatal(err)
			}
		}) {
			t.Run(name+" "+p, func(t *testing.T) {
				l := newLife(t)
				v := l.create("web", false)
				mustStart(t, l, v)
				l.crash(p, func() { _ = op(l, v.ID) })
				l.restart()
				got := l.agrees("after recovery", v)
				if name == "delete" && got.ID != "" || name != "delete" && got.State != vm.Stopped {
					t.Errorf("after a crash in %s the machine is %q", name, got.State)
				}
			})
		}
	}
}

func TestTakingDownFailsAtEveryPoint(t *testing.T) {
	probe := newLife(t)
	pv := probe.create("web", false)
	mustStart(t, probe, pv)
	for _, p := range probe.points(func() {
		if _, err := probe.Delete(context.Background(), pv.ID); err != nil {
			t.Fatal(err)
		}
	}) {
		t.Run(p, func(t *testing.T) {
			l := newLife(t)
			v := l.create("web", false)
			mustStart(t, l, v)
			l.w.SetFail(once(p, func() error { return errBoom }))
			_, err := l.Delete(context.Background(), v.ID)
			l.w.SetFail(nil)
			if !errors.Is(err, errBoom) {
				t.Fatalf("Delete = %v, want boom", err)
			}
			if got := l.record(v.ID); got.State != vm.Faulty || !strings.Contains(got.LastError, "boom") {
				t.Errorf("recorded %s, last error %q", got.State, got.LastError)
			}
			l.restart()
			if got := l.record(v.ID); got.State != vm.Faulty {
				t.Errorf("after a restart %s, want faulty", got.State)
			}
			if _, err := l.Delete(context.Background(), v.ID); err != nil {
				t.Errorf("delete again: %v", err)
			}
			l.agrees("after deleting again", v)
		})
	}
}

func TestCreateFailsOrDiesAtEveryPoint(t *testing.T) {
	probe := newLife(t)
	for _, p := range probe.points(func() { probe.create("web", false) }) {
		t.Run(p, func(t *testing.T) {
			l := newLife(t)
			l.w.SetFail(once(p, func() error { return errBoom }))
			_, err := l.Create(context.Background(), lifecycle.Request{Name: "web"}, nobody)
			l.w.SetFail(nil)
			if !errors.Is(err, errBoom) {
				t.Fatalf("Create = %v, want boom", err)
			}
			nothingLeft(t, l)

			l.crash(p, func() { _, _ = l.Create(context.Background(), lifecycle.Request{Name: "web"}, nobody) })
			l.restart()
			// What was recorded can be used as if nothing had been.
			if v, err := l.Resolve(context.Background(), "web"); err == nil {
				mustStart(t, l, v)
				if _, err := l.Delete(context.Background(), v.ID); err != nil {
					t.Error(err)
				}
			}
			nothingLeft(t, l)
		})
	}
}

func nothingLeft(t *testing.T, l *life) {
	t.Helper()
	vs, err := l.List(context.Background())
	if err != nil || len(vs) != 0 {
		t.Errorf("records left: %v, %v", vs, err)
	}
	entries, err := os.ReadDir(l.paths.VMs())
	if err != nil || len(entries) != 0 {
		t.Errorf("directories left: %v, %v", entries, err)
	}
}

func mustStart(t *testing.T, l *life, v vm.VM) {
	t.Helper()
	if _, err := l.Start(context.Background(), v.ID, nobody); err != nil {
		t.Fatalf("start: %v", err)
	}
}

// The caller's going away ends a start, and what it began is taken down.
func TestCallerGoesAway(t *testing.T) {
	l := newLife(t)
	v := l.create("web", true)
	ctx, cancel := context.WithCancel(context.Background())
	l.w.SetFail(once("after launch", func() error { cancel(); return nil }))
	if _, err := l.Start(ctx, v.ID, nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want canceled", err)
	}
	if got := l.agrees("after cancelling", v); got.State != vm.Stopped {
		t.Errorf("recorded %s", got.State)
	}
}
