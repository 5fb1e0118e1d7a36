package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"banger/internal/errkind"
	"banger/internal/template"
	"banger/internal/vm"
)

// minTemplateFree is how much of the disk has to be free for templates that no
// machine stands on to stay, in bytes.
const minTemplateFree = 2 << 30

// shortTemplateID is how many digits of a template's id people are shown.
const shortTemplateID = 12

// TemplateUse is a template and who stands on it.
type TemplateUse struct {
	template.Template
	Machines []string // names, sorted; also of those that banger keeps for itself
}

// Templates returns every template, damaged ones too, by ID.
func (m *Manager) Templates(ctx context.Context) ([]TemplateUse, error) {
	all, err := m.d.Templates.List(ctx)
	if err != nil {
		return nil, err
	}
	users, err := m.templateUsers(ctx)
	if err != nil {
		return nil, err
	}
	uses := make([]TemplateUse, 0, len(all))
	for _, t := range all {
		uses = append(uses, TemplateUse{t, users[t.ID]})
	}
	return uses, nil
}

// templateUsers returns the names of the machines that stand on each template,
// by its ID: of all that there is a record of, whether they run or not.
func (m *Manager) templateUsers(ctx context.Context) (map[string][]string, error) {
	vms, err := m.d.Records.List(ctx)
	if err != nil {
		return nil, err
	}
	users := make(map[string][]string)
	for _, v := range vms {
		if v.Template != "" {
			users[v.Template] = append(users[v.Template], v.Name)
		}
	}
	for _, names := range users {
		slices.Sort(names)
	}
	return users, nil
}

// Template finds the template, damaged or not, whose ID begins with ref. None is
// an error of kind [errkind.NotFound], several are one of kind [errkind.Usage].
func (m *Manager) Template(ctx context.Context, ref string) (TemplateUse, error) {
	if ref == "" {
		return TemplateUse{}, errkind.New(errkind.Usage, "a template is named by its id or the beginning of it")
	}
	all, err := m.Templates(ctx)
	if err != nil {
		return TemplateUse{}, err
	}
	all = slices.DeleteFunc(all, func(t TemplateUse) bool { return !strings.HasPrefix(t.ID, ref) })
	switch len(all) {
	case 0:
		return TemplateUse{}, errkind.WithHint(errkind.New(errkind.NotFound, "no template %.70q", ref), "banger template list")
	case 1:
		return all[0], nil
	}
	return TemplateUse{}, ambiguousTemplate(ref, all)
}

// ambiguousTemplate is the error for a prefix that several templates share.
func ambiguousTemplate(prefix string, ts []TemplateUse) error {
	var list []string
	for _, t := range ts[:min(len(ts), 5)] {
		list = append(list, t.ID)
	}
	if len(ts) > len(list) {
		list = append(list, fmt.Sprintf("and %d more", len(ts)-len(list)))
	}
	return errkind.WithHint(
		errkind.New(errkind.Usage, "%q begins the ids of %d templates: %s", prefix, len(ts), strings.Join(list, ", ")),
		"banger template show "+ts[0].ID)
}

// VerifyTemplate reads all of a template and compares it with what it was made
// as. One that is not that is set aside, so that no machine is made of it any
// more, and the error is a [template.ErrDamaged] that says why.
func (m *Manager) VerifyTemplate(ctx context.Context, ref string) (TemplateUse, error) {
	t, err := m.Template(ctx, ref)
	if err != nil {
		return t, err
	}
	err = m.d.Templates.Verify(ctx, t.ID)
	if !errors.Is(err, template.ErrDamaged) || t.Damaged != "" {
		return t, err
	}
	_, why, _ := strings.Cut(err.Error(), template.ErrDamaged.Error()+": ")
	m.log.Warn("a template is damaged", "template", t.ID, "why", why)
	aside := m.d.Templates.SetAside(ctx, t.ID, why)
	if errkind.Of(aside) == errkind.NotFound {
		aside = nil // nobody can use it
	}
	return t, errors.Join(err, aside)
}

// DeleteTemplate removes a template on which no machine stands, and returns it
// as it was. If one does, whether it runs or not, the error is of kind
// [errkind.Conflict].
func (m *Manager) DeleteTemplate(ctx context.Context, ref string) (TemplateUse, error) {
	if t, err := m.Template(ctx, ref); err == nil {
		m.clear(ctx, func(v vm.VM) bool { return v.Template == t.ID })
	}
	m.parts.Lock()
	defer m.parts.Unlock()
	t, err := m.Template(ctx, ref)
	if err != nil {
		return t, err
	}
	if len(t.Machines) > 0 {
		return t, errkind.WithHint(errkind.New(errkind.Conflict, "template %.*s is in use by machine %q", shortTemplateID, t.ID, t.Machines[0]),
			"banger vm delete "+t.Machines[0])
	}
	if err := m.d.Templates.Delete(ctx, t.ID); err != nil {
		return t, err
	}
	m.log.Info("deleted", "template", t.ID, "image", t.Key.Image)
	return t, nil
}

// PrunableTemplates returns what [Manager.PruneTemplates] would remove now.
func (m *Manager) PrunableTemplates(ctx context.Context, o template.PruneOptions) ([]template.Template, error) {
	all, err := m.d.Templates.List(ctx)
	if err != nil {
		return nil, err
	}
	if o.Keep, err = m.keepTemplates(ctx, o.Keep); err != nil {
		return nil, err
	}
	return o.Choose(all, time.Now()), nil
}

// PruneTemplates removes the templates that o chooses of those on which no
// machine stands, and returns what it has removed, also with an error. What
// o.Keep names stays as well.
func (m *Manager) PruneTemplates(ctx context.Context, o template.PruneOptions) ([]template.Template, error) {
	m.parts.Lock()
	defer m.parts.Unlock()
	var err error
	if o.Keep, err = m.keepTemplates(ctx, o.Keep); err != nil {
		return nil, err
	}
	gone, err := m.d.Templates.Prune(ctx, o)
	for _, t := range gone {
		m.log.Info("deleted", "template", t.ID, "image", t.Key.Image)
	}
	return gone, err
}

// keepTemplates returns the IDs of the templates that have to stay: those in
// more, and those on which machines stand.
func (m *Manager) keepTemplates(ctx context.Context, more map[string]bool) (map[string]bool, error) {
	users, err := m.templateUsers(ctx)
	if err != nil {
		return nil, err
	}
	keep := make(map[string]bool)
	for id := range more {
		keep[id] = more[id]
	}
	for id := range users {
		keep[id] = true
	}
	return keep, nil
}

// PruneTemplatesAsConfigured removes the templates that are damaged, unused for
// as long as the configuration says or more than it lets there be; where the
// disk has less than 2 GiB left, all on which no machine stands. That it could not
// is logged: the next time may. The daemon calls it from time to time.
func (m *Manager) PruneTemplatesAsConfigured(ctx context.Context) {
	o := template.PruneOptions{
		UnusedFor: time.Duration(m.d.Config.TemplateUnused),
		MaxBytes:  int64(m.d.Config.TemplateMax),
	}
	switch _, free, err := m.d.Host.DiskBytes(m.d.Paths.State); {
	case err != nil:
		m.log.Warn("look how full the disk is", "err", err)
	case free < minTemplateFree:
		o.UnusedFor = 1
	}
	if _, err := m.PruneTemplates(ctx, o); err != nil {
		m.log.Warn("prune templates", "err", err)
	}
}
