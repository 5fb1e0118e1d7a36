package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// A template's agent serves nobody until its guest goes on as a machine and is
// told which: whatever ran before would run in every machine of the template,
// and whoever came before the machine's token is known may be anybody.
//
//	template ──Identify──▶ machine ──Finish──▶ machine, nothing left to do
//	    │
//	    └──── Identify fails ──▶ nobody: the host destroys it
//
// An identity is the state of that, and what the agent knows of its machine.
// The agent of a machine that booted by itself begins, and stays, at the end.
type identity struct {
	work       sync.Mutex // one of Settle, Identify and Finish at a time; comes before mu
	unfinished unfinished // guarded by work

	naming sync.Mutex // one renaming at a time; comes before mu

	mu     sync.Mutex
	bundle wire.Bundle
	state  identityState
}

// identityState is how far a guest has come to be a machine.
type identityState int

const (
	isMachine  identityState = iota
	isTemplate               // and waits
	isNobody                 // Identify has begun, and not succeeded
)

// errNoIdentity is the answer to whom nobody can serve yet, or ever.
var (
	errNoIdentity   = errors.New("this machine has no identity yet")
	errLostIdentity = errors.New("this machine has no identity: giving it one has not succeeded")
	errNoTemplate   = errors.New("this guest is no template")
)

func newIdentity(b wire.Bundle) *identity {
	i := &identity{bundle: b}
	if b.Template {
		i.state = isTemplate
	}
	return i
}

// now returns what the agent knows of its machine, or of its template.
func (i *identity) now() wire.Bundle {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bundle
}

func (i *identity) is() identityState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// begin leaves the state of a template for good, and returns its bundle.
func (i *identity) begin() (wire.Bundle, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state != isTemplate {
		return wire.Bundle{}, errNoTemplate
	}
	i.state = isNobody
	return i.bundle, nil
}

// end makes a guest whose identity was begun the machine of a bundle. From here
// on everybody is served, and its token is the only one.
func (i *identity) end(b wire.Bundle) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bundle, i.state = b, isMachine
}

// A gate is the interceptor that refuses what a guest without an identity does
// not answer: every call but those it knows, so that a new one is refused too.
type gate struct{ *identity }

var _ connect.Interceptor = gate{}

// ofTemplate are the calls that a template answers, and ofNobody those that a
// guest does which is good for nothing.
var (
	ofTemplate = map[string]bool{
		wire.AgentServiceInfoProcedure:     true,
		wire.AgentServiceWakeProcedure:     true,
		wire.AgentServiceSettleProcedure:   true,
		wire.AgentServiceIdentifyProcedure: true,
	}
	ofNobody = map[string]bool{wire.AgentServiceInfoProcedure: true}
)

// admit returns why a call is refused, if it is.
func (g gate) admit(procedure string) error {
	switch g.is() {
	case isTemplate:
		if !ofTemplate[procedure] {
			return connect.NewError(connect.CodeFailedPrecondition, errNoIdentity)
		}
	case isNobody:
		if !ofNobody[procedure] {
			return connect.NewError(connect.CodeFailedPrecondition, errLostIdentity)
		}
	}
	return nil
}

func (g gate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g.admit(req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

func (g gate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, st connect.StreamingHandlerConn) error {
		if err := g.admit(st.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, st)
	}
}

// WrapStreamingClient is for clients, of which this is none.
func (g gate) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// notNow is the error of a call that comes to the wrong guest, or too often.
func notNow(err error) error { return connect.NewError(connect.CodeFailedPrecondition, err) }

// failure is the error of a call that tried.
func failure(doing string, err error) error {
	return connect.NewError(connect.CodeInternal, fmt.Errorf("%s: %w", doing, err))
}
