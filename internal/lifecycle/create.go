package lifecycle

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/trace"
	"banger/internal/undo"
	"banger/internal/vm"
)

// maxTries is how often what somebody else was quicker with is tried again.
const maxTries = 20

// Request is what a user asks for; zero means the configured default.
type Request struct {
	Name      string // empty: one is made up
	Spec      vm.Spec
	Ephemeral bool
	From      From
	AutoPause *time.Duration // in the place of Spec's; nil: what is configured

	purpose vm.Purpose
}

// Create makes a machine: its record and its disks, of an image and a kernel
// that are built and pulled if they are not there yet. What makes no sense is
// refused before anything is done. On an error nothing is left but images and
// kernels.
func (m *Manager) Create(ctx context.Context, r Request, p Progress) (vm.VM, error) {
	defer trace.Span(ctx, trace.Daemon, "create")()
	if err := r.From.check(); err != nil {
		return vm.VM{}, err
	}
	spec, err := m.complete(ctx, r)
	if err != nil {
		return vm.VM{}, err
	}
	if spec.Network == network.NAT {
		if err := m.ensureSubnet(ctx); err != nil {
			return vm.VM{}, err
		}
	}
	v := vm.VM{Name: r.Name, Spec: spec, Ephemeral: r.Ephemeral, Purpose: r.purpose, State: vm.Created, MachineID: newToken(), Token: newToken()}
	v, on, err := m.recordOn(ctx, v, r.From, p)
	if err != nil {
		return vm.VM{}, err
	}
	unlock, err := m.locks.Lock(ctx, v.ID)
	if err != nil {
		return vm.VM{}, errors.Join(err, m.d.Records.Delete(context.WithoutCancel(ctx), v.ID))
	}
	defer unlock()
	// Its name is known since it was recorded: somebody may have been quicker.
	if now, err := m.d.Records.Get(ctx, v.ID); err != nil || now.State != vm.Created {
		return vm.VM{}, errors.Join(err, errkind.New(errkind.Conflict, "machine %q was taken up by another call while it was being made", v.Name))
	}
	m.log.Info("state", "vm", v.ID, "name", v.Name, "state", vm.Created)
	var u undo.Stack
	u.Push("record", func(ctx context.Context) error { return m.d.Records.Delete(ctx, v.ID) })
	u.Push("known host", func(context.Context) error { return m.d.KnownHosts.Remove(string(v.ID)) })
	if err := m.d.KnownHosts.Add(knownHost(v)); err != nil {
		return vm.VM{}, errors.Join(err, u.Unwind(ctx))
	}
	u.Push("disks", m.removeDisks(v))
	if err := m.makeDisks(ctx, v, on); err != nil {
		return vm.VM{}, errors.Join(fmt.Errorf("disk: %w", err), u.Unwind(ctx))
	}
	return v, nil
}

// recordOn gets image and kernel and stores a new machine that stands on them,
// and on the template that from lets it begin with, so that nobody removes them in
// between.
func (m *Manager) recordOn(ctx context.Context, v vm.VM, from From, p Progress) (vm.VM, ground, error) {
	for try := 0; ; try++ {
		img, kern, err := m.ensure(ctx, v.Spec, p)
		if err != nil {
			return v, ground{}, err
		}
		m.parts.RLock()
		_, ierr := m.d.Images.Version(ctx, img.Name, img.ID)
		_, kerr := m.d.Kernels.Get(ctx, kern.Name)
		if err := errors.Join(ierr, kerr); err != nil {
			m.parts.RUnlock()
			if try == maxTries || ctx.Err() != nil {
				return v, ground{}, err
			}
			m.log.Warn("image or kernel went while a machine was being made; again", "err", err)
			continue
		}
		v.Spec.ImageID, v.Spec.Kernel = img.ID, kern.Name
		t, err := m.templateFrom(ctx, v, from, img, kern)
		if err == nil {
			v.Template = t.ID
			v, err = m.record(ctx, v)
		}
		m.parts.RUnlock()
		return v, ground{img, t}, err
	}
}

// record stores a new machine under an id, and a name if it has none, that
// nobody has.
func (m *Manager) record(ctx context.Context, v vm.VM) (vm.VM, error) {
	defer trace.Span(ctx, trace.Daemon, "record created")()
	return named(v.Name, "", func(name string) (vm.VM, error) {
		v.ID, v.Name = vm.NewID(), name
		return m.d.Records.Create(ctx, v)
	})
}

// named records a machine under a name or, if that is empty, under one that is
// made up and that nobody has: the first to be tried is ready, unless that is empty
// too.
func named(name, ready string, record func(name string) (vm.VM, error)) (vm.VM, error) {
	for try := 0; ; try++ {
		as := name
		if name == "" {
			as, ready = cmp.Or(ready, vm.MadeUpName()), ""
		}
		v, err := record(as)
		if err == nil || name != "" || errkind.Of(err) != errkind.Conflict || try == maxTries {
			return v, err
		}
	}
}

// complete checks what was asked for and fills in the defaults.
func (m *Manager) complete(ctx context.Context, r Request) (vm.Spec, error) {
	s, c := r.Spec, m.d.Config
	if r.Name != "" {
		if err := vm.CheckName(r.Name); err != nil {
			return s, err
		}
		// Told before an image is built for nothing; the store has the last
		// word.
		if m.taken(ctx, r.Name) {
			return s, errkind.WithHint(errkind.New(errkind.Conflict, "machine %q exists already", r.Name),
				"banger vm show "+r.Name, "banger vm delete "+r.Name)
		}
	}
	s.AutoPause = time.Duration(c.AutoPause)
	if r.AutoPause != nil {
		s.AutoPause = *r.AutoPause
	}
	if err := CheckAutoPause(s.AutoPause); err != nil {
		return s, err
	}
	setDefault(&s.Image, c.Image)
	setDefault(&s.Kernel, c.Kernel)
	setDefault(&s.Driver, m.d.Default)
	setDefault(&s.VCPUs, c.VCPUs)
	setDefault(&s.VCPUs, m.someVCPUs(s.Driver))
	setDefault(&s.MemoryBytes, min(int64(c.Memory), m.d.Host.MemoryBytes()/2)>>20<<20)
	setDefault(&s.DiskBytes, int64(c.Disk))
	setDefault(&s.Network, network.NAT)
	if err := vm.CheckName(s.Image); err != nil {
		return s, errkind.New(errkind.Usage, "%q is no name for an image: it takes 1 to 63 lower-case letters, digits and inner hyphens", s.Image)
	}
	if err := m.checkSizes(s); err != nil {
		return s, err
	}
	d, ok := m.d.Drivers[s.Driver]
	if !ok {
		return s, errkind.New(errkind.Usage, "unknown driver %q; there is %v", s.Driver, m.driverNames())
	}
	if err := d.Check(ctx); err != nil {
		return s, err
	}
	return s, m.checkNetwork(ctx, s.Network)
}

// someVCPUs is how many virtual CPUs a machine gets when nobody says. In
// software a second one is emulated beside the first, and takes from the host
// more than it gives the guest.
func (m *Manager) someVCPUs(driver string) int {
	if d, ok := m.d.Drivers[driver]; ok && !d.Capabilities().Accelerated {
		return 1
	}
	return min(2, m.d.Host.CPUs())
}

func setDefault[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// checkSizes refuses a machine that its host cannot hold.
func (m *Manager) checkSizes(s vm.Spec) error {
	total, free, err := m.d.Host.DiskBytes(m.d.Paths.State)
	if err != nil {
		return err
	}
	mem, cpus := m.d.Host.MemoryBytes(), m.d.Host.CPUs()
	size := func(n int64) config.Size { return config.Size(n) }
	switch {
	case s.VCPUs < 1 || s.VCPUs > cpus:
		return errkind.New(errkind.Usage, "%d virtual CPUs: it takes 1 to %d, as many as the host has", s.VCPUs, cpus)
	case s.MemoryBytes < 64<<20 || s.MemoryBytes > mem:
		return errkind.New(errkind.Usage, "memory of %s: it takes 64M to %s, as much as the host has", size(s.MemoryBytes), size(mem>>20<<20))
	case s.DiskBytes < 16<<20 || s.DiskBytes > total:
		return errkind.New(errkind.Usage, "work disk of %s: it takes 16M to %s, the size of the file system under %s", size(s.DiskBytes), size(total>>20<<20), m.d.Paths.State)
	case s.MemoryBytes%(1<<20) != 0:
		return errkind.New(errkind.Usage, "memory of %d bytes: it takes whole megabytes", s.MemoryBytes)
	case s.DiskBytes%(1<<20) != 0:
		return errkind.New(errkind.Usage, "work disk of %d bytes: it takes whole megabytes", s.DiskBytes)
	case free < config.MinFree:
		return errkind.WithHint(errkind.New(errkind.Host, "%s has %s left, and a machine takes at least %s", m.d.Paths.State, size(free>>20<<20), size(config.MinFree)),
			"df -h "+m.d.Paths.State)
	}
	return nil
}

func (m *Manager) driverNames() []string {
	var names []string
	for n := range m.d.Drivers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ensure gets the image and the kernel, building and pulling what is missing.
func (m *Manager) ensure(ctx context.Context, s vm.Spec, p Progress) (image.Image, kernel.Kernel, error) {
	end := trace.Span(ctx, trace.Daemon, "image")
	img, err := m.d.Images.Ensure(ctx, s.Image, image.Progress(p))
	end()
	if err != nil {
		return img, kernel.Kernel{}, err
	}
	name := s.Kernel
	if name == "" {
		name = img.DefaultKernel
	}
	defer trace.Span(ctx, trace.Daemon, "kernel")()
	k, err := m.d.Kernels.Ensure(ctx, name, kernel.Progress(p))
	return img, k, err
}

// removeDisks removes what Create made, for good.
func (m *Manager) removeDisks(v vm.VM) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := m.driver(v.Spec.Driver)
		if err != nil {
			return err
		}
		if err := d.Layers.Delete(ctx, m.rootLayer(v, ground{})); err != nil {
			return err
		}
		if err := m.d.Work.Delete(ctx, m.workLayer(v)); err != nil {
			return err
		}
		return os.RemoveAll(m.paths(v).Dir)
	}
}

// newToken returns 32 random hexadecimal digits.
func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}
