package lifecycle

import (
	"context"
	"time"

	"banger/internal/errkind"
	"banger/internal/template"
	"banger/internal/vm"
)

// makingPoll is how often a template that is being made is looked for.
const makingPoll = 20 * time.Millisecond

// EnsureTemplate returns the template from which machines like s are restored;
// what is zero in s is the configured default. If there is none it is made, also
// if that could not be done a moment ago; one that is being made in the background
// is waited for. One that is damaged is an error of kind [errkind.Conflict]. On an
// error nothing is left but images and kernels. It may be called concurrently.
func (m *Manager) EnsureTemplate(ctx context.Context, s vm.Spec, p Progress) (template.Template, error) {
	var none template.Template
	s, err := m.complete(ctx, Request{Spec: s})
	if err != nil {
		return none, err
	}
	unlock, err := m.making.lock(ctx, func() { p("wait for another template", "", 0, 0) })
	if err != nil {
		return none, err
	}
	defer unlock()
	img, kern, err := m.ensure(ctx, s, p)
	if err != nil {
		return none, err
	}
	s.Kernel = kern.Name
	key, ok, err := m.keyOf(ctx, s, img, kern)
	if err != nil {
		return none, err
	}
	if ok {
		t, err := m.d.Templates.Get(ctx, key.ID())
		switch {
		case err == nil && t.Damaged != "":
			return none, damagedTemplate(t)
		case err == nil || errkind.Of(err) != errkind.NotFound:
			return t, err
		}
		m.making.forgive(key.ID())
	}
	return m.MakeTemplate(ctx, s, p)
}

// lock waits until no template is being made, and until unlock none other is; if
// it has to wait, it calls waits first.
func (k *making) lock(ctx context.Context, waits func()) (unlock func(), err error) {
	if k.one.TryLock() {
		return k.one.Unlock, nil
	}
	waits()
	tick := time.NewTicker(makingPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if k.one.TryLock() {
				return k.one.Unlock, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// forgive forgets that a template could not be made.
func (k *making) forgive(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.failed, id)
}
