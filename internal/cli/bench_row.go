package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

// benchArgv is what is run in every row.
var benchArgv = []string{"cat", "/etc/hostname"}

// cold is a machine that boots. That its image is built and its kernel fetched is
// not in the first time.
func (b *bench) cold(context.Context) (func(context.Context) (lap, error), error) {
	return func(ctx context.Context) (lap, error) { return b.newMachine(ctx, fromBoot) }, nil
}

// restored is a machine that goes on from a template.
func (b *bench) restored(ctx context.Context) (func(context.Context) (lap, error), error) {
	b.p.stage("look for a template")
	if _, err := askTemplate(ctx, b.c, &api.Spec{Image: b.spec.Image, Network: b.spec.Network}, b.p); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (lap, error) { return b.newMachine(ctx, fromTemplate) }, nil
}

// poolTime is how long a machine may take to wait in the pool, and poolBegin how
// long until one that is to is there at all.
const (
	poolTime  = 2 * time.Minute
	poolBegin = 5 * time.Second
)

// pooled is a machine that waits in the pool. That it comes to wait there is not in
// the time, nor in that of the rows after it.
func (b *bench) pooled(ctx context.Context) (func(context.Context) (lap, error), error) {
	b.p.stage("look for a template")
	t, err := askTemplate(ctx, b.c, &api.Spec{Image: b.spec.Image, Network: b.spec.Network}, b.p)
	if err != nil {
		return nil, err
	}
	if _, err := b.newMachine(ctx, fromTemplate); err != nil { // one waits after that
		return nil, err
	}
	b.p.stage("wait for the pool")
	if err := b.awaitPool(ctx, t.Id); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (lap, error) {
		if err := b.awaitPool(ctx, t.Id); err != nil {
			return lap{}, err
		}
		l, err := b.newMachine(ctx, fromPool)
		if err == nil {
			err = b.awaitPool(ctx, t.Id)
		}
		return l, err
	}, nil
}

// awaitPool waits until a machine of a template waits in the pool.
func (b *bench) awaitPool(ctx context.Context, template string) error {
	began := time.Now()
	for limit := poolBegin; time.Since(began) < limit; {
		list, err := b.c.VM.List(ctx, connect.NewRequest(&api.ListRequest{All: true}))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list.Msg.Vms, func(v *api.VM) bool { return v.Purpose == "pool" && v.Template == template })
		switch {
		case i >= 0 && list.Msg.Vms[i].State == "paused":
			return nil
		case i >= 0:
			limit = poolTime
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errkind.WithHint(errkind.New(errkind.Host, "no machine comes to wait in the pool: it is off, or memory is short"), "banger vm list --all")
}

// newMachine runs the command in a new machine, over a connection of its own.
func (b *bench) newMachine(ctx context.Context, from string) (l lap, err error) {
	o, err := b.daemon()
	if err != nil {
		return l, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	c := client.New(o.Paths.Socket())
	defer c.Close()
	cmd, err := c.Run(ctx, client.Machine{Spec: &b.spec, Ephemeral: true, From: from}, client.Start{Argv: benchArgv})
	if err != nil {
		return l, err
	}
	var warning string
	l.answer, err = awaitExit(cmd, began, func(e client.Event) error {
		switch {
		case e.Progress != nil && (b.first || e.Progress.Notice != ""):
			b.p.update("", e.Progress)
		case e.VM != nil && from == fromTemplate && e.VM.Template == "":
			return errors.New("the machine booted: it could not be restored")
		case e.VM != nil:
			b.image = e.VM.Image
		case e.Cleanup != nil:
			warning = e.Cleanup.Warning
		}
		return nil
	})
	if err == nil && warning != "" {
		err = errors.New(warning)
	}
	l.gone = time.Since(began)
	return l, err
}

// exec is a command in a machine that runs.
func (b *bench) exec(ctx context.Context) (func(context.Context) (lap, error), error) {
	if err := b.lend(ctx); err != nil {
		return nil, err
	}
	return b.execOnce, nil
}

func (b *bench) execOnce(ctx context.Context) (l lap, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	cmd, err := b.c.Exec(ctx, b.lent.vm.Id, client.Start{Argv: benchArgv})
	if err != nil {
		return l, err
	}
	l.answer, err = awaitExit(cmd, began, func(client.Event) error { return nil })
	return l, err
}

// resume is exec in a machine that stands. That it comes to stand is not in the
// time.
func (b *bench) resume(ctx context.Context) (func(context.Context) (lap, error), error) {
	if err := b.lend(ctx); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (lap, error) {
		if _, err := b.c.VM.Pause(ctx, connect.NewRequest(&api.PauseRequest{Vm: b.lent.vm.Id})); err != nil {
			return lap{}, err
		}
		return b.execOnce(ctx)
	}, nil
}

// awaitExit receives all that a command has to tell and returns when its exit
// came. A bad end is an error; so is what else returns, with which it gives up.
func awaitExit(cmd *client.Command, began time.Time, also func(client.Event) error) (answer time.Duration, err error) {
	var said strings.Builder
	for {
		e, err := cmd.Receive()
		switch {
		case errors.Is(err, io.EOF) && answer > 0:
			return answer, nil
		case err != nil:
			return 0, err
		case e.Exit != nil:
			answer = time.Since(began)
			if e.Exit.Code != 0 || e.Exit.Error != "" {
				return 0, fmt.Errorf("%s ended with %d: %s", strings.Join(benchArgv, " "), e.Exit.Code, said.String()+e.Exit.Error)
			}
		}
		if e.Stderr != nil && said.Len() < 1<<10 {
			said.Write(e.Stderr)
		}
		if err := also(e); err != nil {
			return 0, err
		}
	}
}

// A lease is a machine that is there until it is given back, or we are gone.
type lease struct {
	vm     *api.VM
	cmd    *client.Command
	cancel context.CancelFunc
	ended  chan struct{} // closed when the call has ended
}

// lend makes the machine that is used again and again, if there is none yet.
func (b *bench) lend(ctx context.Context) error {
	if b.lent != nil {
		return nil
	}
	b.p.stage("make a machine")
	ctx, cancel := context.WithCancel(ctx)
	l, err := b.lendTo(ctx)
	if err != nil {
		cancel()
		return err
	}
	l.cancel, b.lent = cancel, l
	go l.drain()
	return nil
}

// lendTo makes a machine that is leased to a call of ctx.
func (b *bench) lendTo(ctx context.Context) (*lease, error) {
	// It reads what we never write, so it stays as long as we do.
	cmd, err := b.c.Run(ctx, client.Machine{Spec: &b.spec, Ephemeral: true}, client.Start{Argv: []string{"cat"}, Stdin: true})
	if err != nil {
		return nil, err
	}
	l := &lease{cmd: cmd, ended: make(chan struct{})}
	for {
		e, err := cmd.Receive()
		switch {
		case errors.Is(err, io.EOF) || e.Exit != nil:
			return nil, errkind.Wrap(errkind.Internal, errors.New("the machine ended at once"))
		case err != nil:
			return nil, err
		case e.Progress != nil:
			b.p.update("", e.Progress)
		case e.VM != nil:
			l.vm, b.image = e.VM, e.VM.Image
		case e.Started:
			return l, nil
		}
	}
}

// drain takes what else the call has to tell.
func (l *lease) drain() {
	defer close(l.ended)
	for {
		if _, err := l.cmd.Receive(); err != nil {
			return
		}
	}
}

// end gives the machine back: not by the end of its input, for it may stand. That
// it is deleted is not waited for.
func (l *lease) end() {
	l.cancel()
	<-l.ended
}
