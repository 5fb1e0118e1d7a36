package lifecycle

import (
	"context"
	"fmt"

	"banger/internal/errkind"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/template"
	"banger/internal/vm"
)

// From says how a new machine is to begin.
type From string

const (
	// FromAny is the quickest way there is.
	FromAny From = ""
	// FromBoot is a boot, whatever templates there are.
	FromBoot From = "boot"
	// FromTemplate is a restore: where there is no template for it, Create
	// fails. One that is found to be unusable only when the machine starts is
	// set aside, and the machine boots; the notice and its record say so.
	FromTemplate From = "template"
	// FromPool is a machine that waits in the pool: where none does that is like
	// it, there is none for [Manager.Claim], and Create fails.
	FromPool From = "pool"
)

// check refuses what is none of these.
func (f From) check() error {
	switch f {
	case FromAny, FromBoot, FromTemplate, FromPool:
		return nil
	}
	return errkind.New(errkind.Usage, "a machine cannot begin from %q; there is %q, %q and %q", string(f), FromBoot, FromTemplate, FromPool)
}

// templateFrom is the template from which a new machine that is to begin so is
// restored, the zero one if it is to boot. That there is none for one that needs
// it is an error of kind [errkind.Conflict].
func (m *Manager) templateFrom(ctx context.Context, v vm.VM, from From, i image.Image, k kernel.Kernel) (template.Template, error) {
	switch from {
	case FromBoot:
		return template.Template{}, nil
	case FromPool:
		return template.Template{}, errkind.WithHint(errkind.New(errkind.Conflict, "no such machine waits in the pool; one does a while after one has run"),
			"banger vm list --all")
	}
	t := m.templateFor(ctx, v, i, k)
	if from != FromTemplate || t.ID != "" {
		return t, nil
	}
	return t, m.noTemplate(ctx, v, i, k)
}

// noTemplate says why there is no template that a machine could begin with.
func (m *Manager) noTemplate(ctx context.Context, v vm.VM, i image.Image, k kernel.Kernel) error {
	key, ok, err := m.keyOf(ctx, v.Spec, i, k)
	switch {
	case err != nil:
		return err
	case !ok:
		return errkind.WithHint(errkind.New(errkind.Conflict, "there are no templates for driver %s, or they are turned off", v.Spec.Driver),
			"banger daemon status")
	}
	if t, err := m.d.Templates.Get(ctx, key.ID()); err == nil && t.Damaged != "" {
		return damagedTemplate(t)
	}
	return errkind.WithHint(errkind.New(errkind.Conflict, "there is no template for such a machine of image %s; one is made after one has run", i.Name),
		likeThat(v.Spec))
}

// damagedTemplate is the error for what needs a template that is damaged.
func damagedTemplate(t template.Template) error {
	return errkind.WithHint(errkind.New(errkind.Conflict, "template %.*s is damaged: %s", shortTemplateID, t.ID, t.Damaged),
		"banger template delete "+t.ID)
}

// likeThat is a command that runs such a machine.
func likeThat(s vm.Spec) string {
	return fmt.Sprintf("banger vm run --image %s --kernel %s --vcpus %d --memory %dM --disk-size %dM --network %s --driver %s -- true",
		s.Image, s.Kernel, s.VCPUs, s.MemoryBytes>>20, s.DiskBytes>>20, s.Network, s.Driver)
}
