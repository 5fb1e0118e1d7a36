package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"banger/internal/disk"
	"banger/internal/errkind"
	"banger/internal/failpoint"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/template"
	"banger/internal/undo"
	"banger/internal/vm"
)

// A machine of which there is a template begins where that was frozen: it is
// restored at its first start. Its root disk stands on the template's for good;
// each later start is a boot. Until the first start has succeeded nothing on the
// disk is anybody's, so whatever is in the way, it is made anew.

// Notice is the stage of a [Progress] whose detail is a line for people.
const Notice = "notice"

// ground is what a machine's root disk stands on. The zero ground is enough to
// detach and delete the disk.
type ground struct {
	image    image.Image
	template template.Template // that it stands on, of which only what is in Dir is looked at; none: it has no Dir
}

// keyOf is what the template must depend on from which a machine can be
// restored; false: there are none for such machines.
func (m *Manager) keyOf(ctx context.Context, s vm.Spec, i image.Image, k kernel.Kernel) (template.Key, bool, error) {
	d, err := m.driver(s.Driver)
	if err != nil {
		return template.Key{}, false, err
	}
	can := d.Capabilities()
	if !m.d.Config.Templates || !can.Freezes {
		return template.Key{}, false, nil
	}
	version, err := d.Version(ctx)
	if err != nil {
		return template.Key{}, false, err
	}
	agent, err := m.d.Boot.AgentID()
	if err != nil {
		return template.Key{}, false, err
	}
	return template.Key{
		Image: i.Name, ImageID: i.ID, Kernel: k.Name, KernelID: k.ID, Agent: agent,
		Driver: d.Name(), CPU: m.d.Host.Processor(),
		VMM:   fmt.Sprintf("%s, accelerated: %t, vsock port: %d", version, can.Accelerated, can.VsockPort),
		VCPUs: s.VCPUs, MemoryBytes: s.MemoryBytes, RootBytes: m.rootBytes(i), WorkBytes: m.templateDisk(s),
		Network: s.Network == network.NAT,
	}, true, nil
}

// templateFor is the template from which a new machine is to be restored, the
// zero one if there is none. That it cannot be told is no obstacle.
func (m *Manager) templateFor(ctx context.Context, v vm.VM, i image.Image, k kernel.Kernel) template.Template {
	if v.Purpose == vm.ForTemplate {
		return template.Template{}
	}
	key, ok, err := m.keyOf(ctx, v.Spec, i, k)
	var t template.Template
	if ok && err == nil {
		t, err = m.d.Templates.Get(ctx, key.ID())
	}
	if err != nil && errkind.Of(err) != errkind.NotFound {
		m.log.Warn("look for a template", "name", v.Name, "err", err)
	}
	if err != nil || t.Damaged != "" {
		return template.Template{}
	}
	return t
}

// warm reports whether a machine's next start is to be a restore.
func warm(v vm.VM) bool { return v.Template != "" && v.StartedAt.IsZero() }

// prepareTemplate gets ready what a machine's root disk stands on beside its
// image, and from which it is restored if it is to be.
func (m *Manager) prepareTemplate(ctx context.Context, v vm.VM, b *boot) error {
	switch {
	case v.Template == "":
		return nil
	case !warm(v):
		t, err := m.d.Templates.Get(ctx, v.Template)
		if err != nil {
			return fmt.Errorf("the template on which the disk of %q stands: %w", v.Name, err)
		}
		b.ground.template = t
		return nil
	}
	key, ok, err := m.keyOf(ctx, v.Spec, b.ground.image, b.kernel)
	if err != nil || !ok || key.ID() != v.Template {
		return err // it is not as its template was: it boots
	}
	t, err := m.d.Templates.Use(ctx, v.Template)
	switch {
	case err == nil:
		b.template, b.ground.template = &t, t
	case errors.Is(err, template.ErrDamaged):
		m.setAside(ctx, v, err, b.progress)
	case errkind.Of(err) != errkind.NotFound:
		return err
	}
	return nil
}

// setAside makes a template that failed be used no more, and says so.
func (m *Manager) setAside(ctx context.Context, v vm.VM, why error, p Progress) {
	ctx = context.WithoutCancel(ctx)
	m.log.Warn("template set aside", "vm", v.ID, "template", v.Template, "why", why)
	if err := m.d.Templates.SetAside(ctx, v.Template, why.Error()); err != nil {
		m.log.Error("set a template aside", "template", v.Template, "err", err)
	}
	p(Notice, fmt.Sprintf("the template of image %s cannot be used, so %s boots: %s", v.Spec.Image, v.Name, inOneLine(why)), 0, 0)
}

func inOneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// ofHost reports whether an error tells of the host, whatever was done there.
func ofHost(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errkind.Of(err) == errkind.Host
}

// dropDisks removes the disks of a machine that never ran, to be made anew: an
// earlier start may have written to them.
func (m *Manager) dropDisks(ctx context.Context, v vm.VM) error {
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return err
	}
	return errors.Join(d.Layers.Delete(ctx, m.rootLayer(v, ground{})), m.d.Work.Delete(ctx, m.workLayer(v)))
}

// makeCold makes a machine that was to be restored one that boots.
// Preconditions: the machine's lock is held, and it is being started.
func (m *Manager) makeCold(ctx context.Context, v vm.VM, b *boot) (vm.VM, error) {
	b.template, b.ground.template = nil, template.Template{}
	if err := m.dropDisks(ctx, v); err != nil {
		return v, fmt.Errorf("disk: %w", err)
	}
	if err := failpoint.Hit("start/cold"); err != nil {
		return v, err
	}
	return m.change(ctx, v.ID, vm.Change{To: vm.Starting, Cold: true, Found: true})
}

// bootAfterAll boots a machine that could not be restored: what failed may fail
// again, and a user who asked for a machine gets one.
func (m *Manager) bootAfterAll(ctx context.Context, v vm.VM, b *boot, u *undo.Stack, cause error) (vm.VM, error) {
	if err := u.Unwind(ctx); err != nil {
		return v, errors.Join(cause, err)
	}
	if ofHost(cause) { // the next machine may have more luck
		m.log.Warn("restore failed", "vm", v.ID, "template", v.Template, "why", cause)
		b.progress(Notice, fmt.Sprintf("%s could not be restored, so it boots: %s", v.Name, inOneLine(cause)), 0, 0)
	} else {
		m.setAside(ctx, v, cause, b.progress)
	}
	cold, err := m.makeCold(ctx, v, b)
	if err != nil {
		return v, errors.Join(cause, err)
	}
	return cold, m.bringUp(ctx, cold, b, u)
}

// templateDisk is how large the work disk is of the template for machines like s:
// theirs may be larger, for a file system that is mounted can grow, but not shrink.
func (m *Manager) templateDisk(s vm.Spec) int64 { return min(s.DiskBytes, int64(m.d.Config.Disk)) }

// rootBytes is how large the root disk of an image's machine is.
func (m *Manager) rootBytes(i image.Image) int64 {
	return max(int64(m.d.Config.RootFS), i.SizeBytes)
}

// over is l over the ground.
func (g ground) over(l disk.Layer) disk.Layer {
	l.Base, l.BaseID, l.Template = g.image.Root, g.image.ID, g.template.Root()
	return l
}
