package sessiontest

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/ctxbody"
	"banger/internal/guest"
	"banger/internal/guest/wire"
)

// Missing is the name of a command that no guest has.
const Missing = "missing"

// A Guest answers for sessions as an agent does. Use [New].
type Guest struct {
	wire.UnimplementedAgentServiceHandler
	srv *httptest.Server

	mu       sync.Mutex
	sessions map[string]*running                           // guarded by mu
	calls    map[string]int                                // guarded by mu
	lastPID  int32                                         // guarded by mu
	hook     func(ctx context.Context, point string) error // guarded by mu
	mangle   func(*wire.SessionStatus)                     // guarded by mu
}

// running is one session.
type running struct {
	st       *wire.SessionStatus
	stdin    string // mode
	output   map[string][]byte
	ended    chan struct{} // closed when it has
	more     chan struct{} // closed when there is more output, and replaced
	attached string        // by whom
	taken    chan string   // tells who is attached who takes over
}

// New returns a guest without sessions, which is gone when the test ends.
func New(t testing.TB) *Guest {
	g := &Guest{sessions: make(map[string]*running), calls: make(map[string]int)}
	mux := http.NewServeMux()
	mux.Handle(wire.NewAgentServiceHandler(g))
	g.srv = httptest.NewUnstartedServer(mux)
	g.srv.Config.Protocols = new(http.Protocols)
	g.srv.Config.Protocols.SetUnencryptedHTTP2(true)
	g.srv.Start()
	t.Cleanup(func() {
		g.Break()
		g.srv.Close()
	})
	return g
}

// Agent returns a connection to the guest's agent, which is closed when the
// test ends.
func (g *Guest) Agent(t testing.TB) guest.Agent {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", g.srv.Listener.Addr().String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	h := &http.Client{Transport: ctxbody.RoundTripper{Base: tr}}
	return agent{wire.NewAgentServiceClient(h, "http://agent"), make(chan struct{})}
}

type agent struct {
	wire.AgentServiceClient
	done chan struct{}
}

func (a agent) Done() <-chan struct{} { return a.done }
func (agent) Close() error            { return nil }

// Break breaks off all that goes on over connections to the guest. Sessions go
// on.
func (g *Guest) Break() { g.srv.CloseClientConnections() }

// SetHook makes f be asked before and after each call, as "before
// StartSession": its error is the call's.
func (g *Guest) SetHook(f func(ctx context.Context, point string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = f
}

// SetMangle makes f change what the guest says of a session.
func (g *Guest) SetMangle(f func(*wire.SessionStatus)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mangle = f
}

// Calls is how often a method was called.
func (g *Guest) Calls(method string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[method]
}

// IDs are those of the sessions that there are, sorted.
func (g *Guest) IDs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.sessions))
}

// State is that of a session; empty: there is none.
func (g *Guest) State(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[id]; s != nil {
		return s.st.State
	}
	return ""
}

// Put makes a session that runs, which nobody has started.
func (g *Guest) Put(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.put(id, "pipe")
}

// put is Put with mu held.
func (g *Guest) put(id, stdin string) *running {
	g.lastPID++
	s := &running{
		st:    &wire.SessionStatus{Id: id, State: "running", Pid: 100 + g.lastPID, StartedNs: time.Now().UnixNano(), StdinOpen: stdin != "closed"},
		stdin: stdin, output: make(map[string][]byte), ended: make(chan struct{}), more: make(chan struct{}),
	}
	g.sessions[id] = s
	return s
}

// Forget makes a session go without a trace.
func (g *Guest) Forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, id)
}

// End makes a session's command exit.
func (g *Guest) End(id string, code int32, signal string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[id]; s != nil {
		s.end(code, signal)
	}
}

// Write makes a session's command write.
func (g *Guest) Write(id, stream, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[id]; s != nil {
		s.write(stream, []byte(text))
	}
}

// Output is what a session has written.
func (g *Guest) Output(id, stream string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[id]; s != nil {
		return string(s.output[stream])
	}
	return ""
}

// runs, end and write are called with the guest's mu held.
func (s *running) runs() bool { return s.st.State == "running" || s.st.State == "stopping" }

func (s *running) end(code int32, signal string) {
	if s.runs() {
		s.st.State, s.st.Code, s.st.Signal, s.st.EndedNs = "exited", code, signal, time.Now().UnixNano()
		close(s.ended)
	}
}

func (s *running) write(stream string, data []byte) {
	s.output[stream] = append(s.output[stream], data...)
	close(s.more)
	s.more = make(chan struct{})
}

// at asks the hook, and counts the call if it begins.
func (g *Guest) at(ctx context.Context, when, method string) error {
	g.mu.Lock()
	hook := g.hook
	if when == "before" {
		g.calls[method]++
	}
	g.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, when+" "+method)
}

// says is what the guest says of a session. Preconditions: mu is held.
func (g *Guest) says(s *running) *wire.SessionStatus {
	st := &wire.SessionStatus{
		Id: s.st.Id, State: s.st.State, Pid: s.st.Pid, Code: s.st.Code, Signal: s.st.Signal, Stage: s.st.Stage,
		Message: s.st.Message, StartedNs: s.st.StartedNs, EndedNs: s.st.EndedNs, StdinOpen: s.st.StdinOpen,
	}
	if g.mangle != nil {
		g.mangle(st)
	}
	return st
}

// do answers a call that concerns one session (nil: there is none).
func (g *Guest) do(ctx context.Context, method, id string, f func(*running) error) (*wire.SessionStatus, error) {
	if err := g.at(ctx, "before", method); err != nil {
		return nil, err
	}
	g.mu.Lock()
	s := g.sessions[id]
	if s == nil && method != "StartSession" {
		g.mu.Unlock()
		return nil, connect.NewError(connect.CodeNotFound, errNone)
	}
	err := f(s)
	var st *wire.SessionStatus
	if s = g.sessions[id]; s != nil && err == nil {
		st = g.says(s)
	}
	g.mu.Unlock()
	if err == nil {
		err = g.at(ctx, "after", method)
	}
	return st, err
}
