package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/failpoint"
	"banger/internal/guest/wire"
	"banger/internal/template"
	"banger/internal/vm"
	"banger/internal/vmm"
)

const (
	// bootIdle is how many times longer a guest may take for what it does, whose
	// VMM gets a processor when nobody else wants it.
	bootIdle = 5
	// makeAgain is how long a template that could not be made is not tried
	// again.
	makeAgain = 10 * time.Minute
)

// making is what is known of templates being made in the background.
type making struct {
	one sync.Mutex // held while one is made

	mu     sync.Mutex
	failed map[string]time.Time // when one could not be made, by its id; guarded by mu
	// stops end the making of each that is being made, by its id; guarded by mu.
	stops map[string]context.CancelCauseFunc
}

// errNoRoom is why making a template ended that took what others need.
var errNoRoom = errkind.New(errkind.Host, "the host's disk is nearly full")

// errInTheWay is why making a template ended of what somebody wants to delete.
var errInTheWay = errkind.New(errkind.Conflict, "what it is made of is being deleted")

// makeTemplateOf makes the template from which machines like v can be restored
// and returns its id; "" if there is none, or one is being made.
func (m *Manager) makeTemplateOf(v vm.VM) string {
	if !m.making.one.TryLock() {
		return "" // the next use of it may have more luck
	}
	defer m.making.one.Unlock()
	t, err := m.MakeTemplate(m.ctx, v.Spec, silently)
	switch {
	case err == nil:
		m.log.Info("template made", "template", t.ID, "image", v.Spec.Image, "bytes", t.SizeBytes)
	case m.ctx.Err() == nil && errkind.Of(err) != errkind.Conflict:
		m.log.Warn("make a template", "image", v.Spec.Image, "err", err)
	}
	return t.ID
}

// MakeTemplate makes the template from which machines like s, which is complete,
// can be restored, in a machine of its own. One that is there already, or being
// made, is an error of kind [errkind.Conflict]. On an error nothing is left.
func (m *Manager) MakeTemplate(ctx context.Context, s vm.Spec, p Progress) (t template.Template, err error) {
	s.ImageID, s.Labels, s.AutoPause, s.DiskBytes = "", nil, 0, m.templateDisk(s)
	img, kern, err := m.ensure(ctx, s, p)
	if err != nil {
		return t, err
	}
	s.Kernel = kern.Name
	key, ok, err := m.keyOf(ctx, s, img, kern)
	switch {
	case err != nil:
		return t, err
	case !ok:
		return t, errkind.New(errkind.Host, "there are no templates for driver %s, or they are turned off", s.Driver)
	case m.making.justFailed(key.ID()):
		return t, errkind.New(errkind.Conflict, "template %s could not be made a moment ago", key.ID())
	}
	if err := m.roomToFreeze(s); err != nil {
		return t, err
	}
	stage, err := m.d.Templates.Stage(ctx, key)
	if err != nil {
		return t, err
	}
	ctx, done := m.making.begin(ctx, key.ID())
	defer done()
	t, err = m.makeIn(ctx, s, stage, p)
	switch {
	case err != nil && slices.Contains([]error{errNoRoom, errInTheWay}, context.Cause(ctx)):
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case err != nil && ctx.Err() == nil:
		m.making.fail(key.ID())
	}
	return t, err
}

// makeIn makes a template in a stage, which has ended when it returns.
func (m *Manager) makeIn(ctx context.Context, s vm.Spec, stage template.Stage, p Progress) (t template.Template, err error) {
	defer func() { err = errors.Join(err, stage.Discard()) }()
	if t, err = m.bootAndFreeze(ctx, s, stage, p); err != nil {
		return t, fmt.Errorf("make a template of image %s: %w", s.Image, err)
	}
	if err := failpoint.Hit("freeze/publish"); err != nil {
		return t, err
	}
	return stage.Publish(ctx, t)
}

// bootAndFreeze boots a machine and leaves it, frozen, in a stage. The machine is
// gone when it returns.
func (m *Manager) bootAndFreeze(ctx context.Context, s vm.Spec, stage template.Stage, p Progress) (t template.Template, err error) {
	name := "template-" + string(vm.NewID())
	v, err := m.Create(ctx, Request{Name: name, Spec: s, Ephemeral: true, purpose: vm.ForTemplate}, p)
	if err != nil {
		return t, err
	}
	id := v.ID // a start that fails early returns none
	defer func() { err = errors.Join(err, m.discard(context.WithoutCancel(ctx), id)) }()
	to := vmm.Frozen{
		RAM:   filepath.Join(stage.Dir(), template.RAMName),
		State: filepath.Join(stage.Dir(), template.StateName),
	}
	if v, err = m.start(ctx, id, &to, p); err != nil {
		return t, err
	}
	p("freeze "+v.Spec.Image, "", 0, 0)
	return m.freeze(ctx, v, stage.Dir())
}

// freeze freezes a machine that runs and moves its disks to a directory.
func (m *Manager) freeze(ctx context.Context, v vm.VM, dir string) (t template.Template, err error) {
	unlock, err := m.locks.Lock(ctx, v.ID)
	if err != nil {
		return t, err
	}
	defer unlock()
	l, mach, err := m.answering(v)
	if err != nil {
		return t, err
	}
	if t, err = m.settle(ctx, l); err != nil {
		return t, err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		// Held: nobody who finds that there is room lets it go on.
		{"pause", func(ctx context.Context) error { return m.makeStand(ctx, l, mach, "it becomes a template") }},
		{"freeze", mach.Freeze},
		{"end", func(ctx context.Context) error { return m.undoAll(v).Unwind(ctx) }},
		{"disks", func(context.Context) error { return m.moveDisks(v, dir) }},
	} {
		if err := m.timed(v, "freeze "+step.name, step.do)(ctx); err != nil {
			return t, fmt.Errorf("%s: %w", step.name, err)
		}
		if err := failpoint.Hit("freeze/" + step.name); err != nil {
			return t, err
		}
	}
	return t, nil
}

// settle waits until a guest has nothing more to do, and leaves it alone.
func (m *Manager) settle(ctx context.Context, l *live) (t template.Template, err error) {
	t.Token = l.vm().Token
	limit, cancel := context.WithTimeout(ctx, m.bootLimit(l.vm()))
	defer cancel()
	a, err := m.agentOf(limit, l)
	if err != nil {
		return t, err
	}
	info, err := a.Info(limit, connect.NewRequest(&wire.InfoRequest{}))
	if err != nil {
		return t, err
	}
	t.BootID = info.Msg.BootId
	if _, err := a.Settle(limit, connect.NewRequest(&wire.SettleRequest{})); err != nil {
		return t, fmt.Errorf("settle: %w", err)
	}
	l.giveUpAgent()
	select {
	case <-time.After(m.patience.quiet):
		return t, nil
	case <-l.ctx.Done():
		return t, errors.New("the VMM ended")
	case <-ctx.Done():
		return t, context.Cause(ctx)
	}
}

// moveDisks moves the disks of a machine that is to be deleted.
func (m *Manager) moveDisks(v vm.VM, dir string) error {
	d, err := m.driver(v.Spec.Driver)
	if err != nil {
		return err
	}
	return errors.Join(
		os.Rename(d.Layers.Path(m.rootLayer(v, ground{})), filepath.Join(dir, template.RootName)),
		os.Rename(m.d.Work.Path(m.workLayer(v)), filepath.Join(dir, template.WorkName)),
	)
}

// roomToFreeze refuses to make a template that may fill the disk.
func (m *Manager) roomToFreeze(s vm.Spec) error {
	_, free, err := m.d.Host.DiskBytes(m.d.Paths.State)
	if err != nil {
		return err
	}
	if need := s.MemoryBytes + minTemplateFree; free < need {
		return errkind.WithHint(errkind.New(errkind.Host, "%s has %s left, and a template may take %s",
			m.d.Paths.State, config.Size(free>>20<<20), config.Size(need)), "df -h "+m.d.Paths.State)
	}
	return nil
}

// bootLimit is how long a machine's guest may take until its agent answers.
func (m *Manager) bootLimit(v vm.VM) time.Duration {
	return time.Duration(m.d.Config.Boot) * slower(v)
}

// slower is how many times longer what a guest does may take.
func slower(v vm.VM) time.Duration {
	if v.Purpose == vm.ForUser {
		return 1
	}
	return bootIdle
}

// ours refuses what users cannot do with a machine that banger keeps for
// itself.
func ours(v vm.VM) error {
	if v.Purpose == vm.ForUser {
		return nil
	}
	what := "it becomes a template, and ends by itself"
	if v.Purpose == vm.ForPool {
		what = poolReason
	}
	return errkind.WithHint(errkind.New(errkind.Conflict, "machine %q is banger's own: %s", v.Name, what), "banger vm delete "+v.Name)
}

// justFailed reports whether a template could not be made a moment ago.
func (k *making) justFailed(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.failed[id]) < makeAgain
}

// begin returns the context in which a template is made, which giveUp ends.
func (k *making) begin(ctx context.Context, id string) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stops == nil {
		k.stops = make(map[string]context.CancelCauseFunc)
	}
	k.stops[id] = stop
	return ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.stops, id)
		stop(nil)
	}
}

// giveUp ends the making of all templates.
func (k *making) giveUp(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, stop := range k.stops {
		stop(why)
	}
}

func (k *making) fail(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed == nil {
		k.failed = make(map[string]time.Time)
	}
	k.failed[id] = time.Now()
}
