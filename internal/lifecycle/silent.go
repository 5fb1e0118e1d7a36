package lifecycle

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// patience is how long guests, and what does not answer, are waited for.
type patience struct {
	// answer is how long a VMM or an agent may take to answer before it
	// counts as silent.
	answer time.Duration
	// agent is how long an agent may be silent before the calls that wait for
	// it are broken off and the next one reaches for it anew.
	agent time.Duration
	// quiet is how long a guest is left alone before it is frozen: what is on
	// its way to the host then would be lost.
	quiet time.Duration
}

// defaultPatience: a guest without KVM on a busy host, with all its memory in
// use, may take seconds to answer.
var defaultPatience = patience{answer: 5 * time.Second, agent: 20 * time.Second, quiet: 300 * time.Millisecond}

// silent is who of a machine does not answer.
type silent string

const (
	nobodySilent silent = ""
	silentVMM    silent = "VMM"
	silentAgent  silent = "agent"
)

// error refuses what would wait for s.
func (s silent) error(v vm.VM) error {
	err := errkind.New(errkind.Internal, "the %s of machine %q does not answer", s, v.Name)
	if s == silentAgent {
		return errkind.WithHint(err, "banger vm restart "+v.Name)
	}
	return errkind.WithHint(err, "banger vm kill "+v.Name)
}

// AskWhoAnswers finds out which VMMs do not answer, and which agents that
// somebody waits for, so that nothing waits for a guest without a word. The
// daemon calls it from time to time.
func (m *Manager) AskWhoAnswers() {
	for _, l := range m.allLive() {
		m.background(func() { m.ask(l) })
	}
}

func (m *Manager) ask(l *live) {
	mach, _ := l.standing()
	if mach == nil || !l.asking.TryLock() {
		return
	}
	defer l.asking.Unlock()
	who, err := nobodySilent, m.askVMM(l, mach)
	if err != nil {
		who = silentVMM
	} else if err = m.askAgent(l); err != nil {
		who = silentAgent
	}
	if l.ctx.Err() != nil {
		return
	}
	was, since := l.setSilent(who)
	if who == was {
		if who == silentAgent && time.Since(since) > m.patience.agent {
			m.log.Warn("connection to the agent given up", "vm", l.vm().ID)
			l.giveUpAgent()
		}
		return
	}
	if was == silentVMM || who == nobodySilent {
		l.tell(fmt.Sprintf("the %s of machine %q answers again", was, l.vm().Name))
	}
	if who != nobodySilent {
		m.log.Warn("no answer", "vm", l.vm().ID, "of", string(who), "err", err)
		l.tell(who.error(l.vm()).Error() + "; the command goes on if it does again")
	}
}

func (m *Manager) askVMM(l *live, mach vmm.Machine) error {
	ctx, cancel := context.WithTimeout(l.ctx, m.patience.answer)
	defer cancel()
	_, err := mach.Status(ctx)
	return err
}

// askAgent asks an agent that is waited for, or that was silent: others are
// left in peace. One whose guest stands, or is about to end, cannot answer.
func (m *Manager) askAgent(l *live) error {
	a := l.connected()
	if a == nil || l.isEnding() || !l.isWaitedFor() && l.whoIsSilent() != silentAgent {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, m.patience.answer)
	defer cancel()
	_, err := a.Info(ctx, connect.NewRequest(&wire.InfoRequest{}))
	if _, st := l.standing(); ctx.Err() == nil || stands(st) || l.isEnding() {
		return nil // it answered, if only that its connection has broken
	}
	return err
}

// setSilent records who does not answer, and returns who did not until now
// and since when.
func (l *live) setSilent(who silent) (was silent, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, since = l.silent, l.since
	if who != was {
		l.silent, l.since = who, time.Now()
	}
	return was, since
}

func (l *live) whoIsSilent() silent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
}

// silence is the error of a machine of which somebody does not answer.
func (l *live) silence() error {
	if who := l.whoIsSilent(); who != nobodySilent {
		return who.error(l.vm())
	}
	return nil
}

// giveUpAgent breaks off what waits for an agent. The next call dials anew:
// whoever has the agent's place by then may answer.
func (l *live) giveUpAgent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = nobodySilent
	if l.agent != nil {
		l.agent.Close()
		l.agent = nil
	}
}

// isWaitedFor reports whether somebody listens for notices: whose command runs
// in the machine, does.
func (l *live) isWaitedFor() bool {
	l.nmu.Lock()
	defer l.nmu.Unlock()
	return len(l.notices) > 0
}
