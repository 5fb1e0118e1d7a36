package daemontest

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/disk/disktest"
	"banger/internal/lifecycle"
	"banger/internal/network/networktest"
	"banger/internal/vmm/vmmtest"
)

// A World is a pretend host. It outlives the daemons that are opened on it.
type World struct {
	VMM     *vmmtest.Host
	Images  *Images
	Kernels *Kernels
	Host    Host
	Net     *networktest.Host
	Limits  *Limits
	Dir     string      // of what stands for images and kernels
	Silent  atomic.Bool // guests' agents do not answer
	// ClocksSet is how often a guest's clock was set.
	ClocksSet atomic.Int64
	// Identities are those of guests that went on from a template.
	Identities Identities

	mu   sync.Mutex
	fail func(op string) error // guarded by mu
}

// NewWorld returns a host on which nothing runs, with the images "tiny" (for
// a machine that names none) and "other".
func NewWorld(t testing.TB) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{
		VMM:     vmmtest.NewHost(),
		Images:  &Images{Dir: dir, Recipes: []string{"tiny", "other"}},
		Kernels: &Kernels{Dir: dir},
		Host:    Host{CPU: 4, Memory: 8 << 30, Total: 100 << 30, Spare: 50 << 30},
		Net:     networktest.NewHost(),
		Limits:  &Limits{Dir: filepath.Join(dir, "cgroup")},
		Dir:     dir,
	}
	w.VMM.SetFail(w.ask)
	w.Net.SetFail(w.ask)
	w.Limits.Fail = w.ask
	return w
}

// SetFail makes f decide what fails: it is asked before and after everything
// that touches the host, by name. Nil: nothing fails.
func (w *World) SetFail(f func(op string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = f
}

func (w *World) ask(op string) error {
	w.mu.Lock()
	f := w.fail
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op)
}

// Mechanisms are what a daemon on this host stands on; see
// [daemon.Options].
func (w *World) Mechanisms(p config.Paths, _ config.Config, _ *slog.Logger) (daemon.Mechanisms, error) {
	d := w.VMM.Driver()
	return daemon.Mechanisms{
		Drivers:       map[string]lifecycle.Driver{d.Name(): {Driver: d, Layers: disktest.Layers{Fail: w.ask}}},
		DefaultDriver: d.Name(),
		DriverReason:  "it is a test",
		Finder:        w.VMM.Finder(),
		Work:          disktest.Work{Fail: w.ask},
		Network:       w.Net.Network(p.Tag),
		Limits:        w.Limits,
		Names:         DNS{},
		Images:        w.Images,
		Kernels:       w.Kernels,
		Boot:          Boot{Fail: w.ask},
		Dialer:        Dialer{Host: w.VMM, Fail: w.ask, Silent: &w.Silent, ClocksSet: &w.ClocksSet, Identities: &w.Identities},
		Host:          &w.Host,
	}, nil
}

// NewPaths returns the places of a daemon of its own, under a directory that is
// short enough for sockets and is removed with what it holds when the test
// ends.
func NewPaths(t testing.TB) config.Paths {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bgr-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	p, err := config.NewPaths(root)
	if err != nil {
		t.Fatal(err)
	}
	p.Run = filepath.Join(root, "run")
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Config is the configuration of daemons on a pretend host.
func Config() config.Config {
	c := config.Default()
	c.Image = "tiny"
	c.Templates, c.Pool = false, 0 // made in the background, they surprise
	return c
}
