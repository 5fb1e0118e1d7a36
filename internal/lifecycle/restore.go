package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"banger/internal/failpoint"
	"banger/internal/guest/wire"
	"banger/internal/trace"
	"banger/internal/vm"
)

const (
	// identifyTime bounds giving a guest that was restored its identity.
	identifyTime = 30 * time.Second
	// finishAfter is when that is finished, from the start's end on: what is
	// left takes the guest's processor from whoever is quick to use it.
	finishAfter = time.Second
	finishTime  = 2 * time.Minute
)

// identify makes the guest of a template, which goes on, the machine. Until it
// has succeeded the agent serves nobody, and the record says starting.
func (m *Manager) identify(v vm.VM, b *boot) func(context.Context) error {
	return func(ctx context.Context) error {
		l := m.liveOf(v.ID)
		if l == nil {
			return errors.New("the VMM has gone")
		}
		l.setToken(b.template.Token)
		if err := m.firstContact(ctx, v, b); err != nil {
			return err
		}
		if err := failpoint.Hit("start/guest/contact"); err != nil {
			return err
		}
		a := l.connected()
		if a == nil {
			return errors.New("the connection to the agent broke")
		}
		w, err := m.bundle(v, b)
		if err != nil {
			return err
		}
		data, err := w.Encode()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, identifyTime*slower(v))
		defer cancel()
		entropy := make([]byte, 64)
		rand.Read(entropy) // never fails (crypto/rand, Go 1.24)
		defer trace.Span(ctx, trace.Guest, "identify")()
		_, err = a.Identify(ctx, connect.NewRequest(&wire.IdentifyRequest{
			BundleJson: data, UnixNs: time.Now().UnixNano(), Entropy: entropy,
		}))
		if err != nil {
			return fmt.Errorf("give the guest its identity: %w", err)
		}
		l.setToken(v.Token)
		return nil
	}
}

// finishSoon has a guest that was restored do what it left for later.
func (m *Manager) finishSoon(v vm.VM) {
	l := m.liveOf(v.ID)
	if l == nil {
		return
	}
	done := m.Use(v.ID) // paused, it could not
	began := m.background(func() {
		defer done()
		select {
		case <-time.After(finishAfter):
			m.finish(l)
		case <-l.ctx.Done():
		}
	})
	if !began {
		done()
	}
}

// finish is finishSoon now. Doing it again does nothing.
func (m *Manager) finish(l *live) {
	ctx, cancel := context.WithTimeout(l.ctx, finishTime)
	defer cancel()
	a, err := m.agentOf(ctx, l)
	if err == nil {
		m.tell(ctx, l, a)
		_, err = a.Finish(ctx, connect.NewRequest(&wire.FinishRequest{}))
	}
	// An agent that was started again since knows of nothing to finish.
	if err != nil && l.ctx.Err() == nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		m.log.Warn("finish a machine that was restored", "vm", l.vm().ID, "err", err)
	}
}

// setToken says what greets the agent from now on.
func (l *live) setToken(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
}

func (l *live) greeting() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}
