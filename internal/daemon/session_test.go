package daemon_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/ctxbody"
	"banger/internal/daemon"
	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/session/sessiontest"
)

// A sessionWorld is a world in whose guests a pretend agent keeps sessions.
type sessionWorld struct {
	*daemontest.World
	t     *testing.T
	guest *sessiontest.Guest
	paths config.Paths
}

func newSessionWorld(t *testing.T) *sessionWorld {
	t.Helper()
	return &sessionWorld{daemontest.NewWorld(t), t, sessiontest.New(t), daemontest.NewPaths(t)}
}

// Mechanisms are those of the world, but for who answers for sessions.
func (w *sessionWorld) Mechanisms(p config.Paths, c config.Config, log *slog.Logger) (daemon.Mechanisms, error) {
	m, err := w.World.Mechanisms(p, c, log)
	m.Dialer = sessionDialer{m.Dialer, w.guest.Agent(w.t)}
	return m, err
}

type sessionDialer struct {
	guest.Dialer
	sessions wire.AgentServiceClient
}

func (d sessionDialer) Dial(ctx context.Context, e guest.Endpoint) (guest.Agent, error) {
	a, err := d.Dialer.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	return sessionAgent{a, d.sessions}, nil
}

// A sessionAgent is an agent whose sessions another one has.
type sessionAgent struct {
	guest.Agent
	s wire.AgentServiceClient
}

func (a sessionAgent) StartSession(ctx context.Context, r *connect.Request[wire.StartSessionRequest]) (*connect.Response[wire.StartSessionResponse], error) {
	return a.s.StartSession(ctx, r)
}

func (a sessionAgent) ListSessions(ctx context.Context, r *connect.Request[wire.ListSessionsRequest]) (*connect.Response[wire.ListSessionsResponse], error) {
	return a.s.ListSessions(ctx, r)
}

func (a sessionAgent) SessionLogs(ctx context.Context, r *connect.Request[wire.SessionLogsRequest]) (*connect.ServerStreamForClient[wire.SessionLogsResponse], error) {
	return a.s.SessionLogs(ctx, r)
}

func (a sessionAgent) SendSession(ctx context.Context) *connect.ClientStreamForClient[wire.SendSessionRequest, wire.SendSessionResponse] {
	return a.s.SendSession(ctx)
}

func (a sessionAgent) AttachSession(ctx context.Context) *connect.BidiStreamForClient[wire.AttachSessionRequest, wire.AttachSessionResponse] {
	return a.s.AttachSession(ctx)
}

func (a sessionAgent) StopSession(ctx context.Context, r *connect.Request[wire.StopSessionRequest]) (*connect.Response[wire.StopSessionResponse], error) {
	return a.s.StopSession(ctx, r)
}

func (a sessionAgent) SignalSession(ctx context.Context, r *connect.Request[wire.SignalSessionRequest]) (*connect.Response[wire.SignalSessionResponse], error) {
	return a.s.SignalSession(ctx, r)
}

func (a sessionAgent) DeleteSession(ctx context.Context, r *connect.Request[wire.DeleteSessionRequest]) (*connect.Response[wire.DeleteSessionResponse], error) {
	return a.s.DeleteSession(ctx, r)
}

// A sessionLife is one daemon's time on the world, and who calls it.
type sessionLife struct {
	api.SessionServiceClient
	t    *testing.T
	c    *client.Client
	stop func()
}

func (w *sessionWorld) open() *sessionLife {
	w.t.Helper()
	d, err := daemon.Open(context.Background(), daemon.Options{
		Paths: w.paths, Config: daemontest.Config(), Mechanisms: w.Mechanisms, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.Serve(context.Background()) }()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.paths.Socket())
	}}
	h := &http.Client{Transport: ctxbody.RoundTripper{Base: tr}}
	l := &sessionLife{
		SessionServiceClient: api.NewSessionServiceClient(h, "http://bangerd", connect.WithInterceptors(api.NewClientInterceptor())),
		t:                    w.t, c: client.New(w.paths.Socket()),
	}
	l.stop = func() {
		w.t.Helper()
		d.Stop()
		if err := errors.Join(<-served, d.Close()); err != nil {
			w.t.Error(err)
		}
		l.c.Close()
		tr.CloseIdleConnections()
	}
	return l
}

func (l *sessionLife) start(name, stdin string) *api.Session {
	l.t.Helper()
	r, err := l.StartSession(l.t.Context(), connect.NewRequest(&api.StartSessionRequest{
		Vm: "web", Name: name, Stdin: stdin, Command: &wire.ExecStart{Argv: []string{"cat", "-u"}, Env: map[string]string{"A": "1"}}, Tags: []string{"t"},
	}))
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Msg.Session
}

func (l *sessionLife) show(ref string) *api.Session {
	l.t.Helper()
	r, err := l.ShowSession(l.t.Context(), connect.NewRequest(&api.ShowSessionRequest{Vm: "web", Session: ref}))
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Msg.Session
}

func (l *sessionLife) send(ref, text string, eof bool) (*api.SendSessionResponse, error) {
	st := l.SendSession(l.t.Context())
	in := &api.SendIn{Vm: "web", Session: ref, Eof: eof, Timeout: durationpb.New(time.Minute)}
	_ = st.Send(&api.SendSessionRequest{Msg: &api.SendSessionRequest_Start{Start: in}}) // the answer tells
	if text != "" {
		_ = st.Send(&api.SendSessionRequest{Msg: &api.SendSessionRequest_Data{Data: []byte(text)}})
	}
	r, err := st.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (l *sessionLife) logs(r *api.SessionLogsRequest) (text string, err error) {
	st, err := l.SessionLogs(l.t.Context(), connect.NewRequest(r))
	if err != nil {
		return "", err
	}
	defer st.Close()
	for st.Receive() {
		m := st.Msg()
		if want := "/root/.local/state/banger/sessions/" + m.Session + "/" + m.Stream + ".log"; m.Path != want {
			l.t.Errorf("path %q, want %q", m.Path, want)
		}
		text += string(m.Content)
	}
	return text, st.Err()
}

type attachStream = *connect.BidiStreamForClient[api.AttachSessionRequest, api.AttachSessionResponse]

func (l *sessionLife) attach(ctx context.Context, ref string, start *wire.AttachStart) attachStream {
	l.t.Helper()
	st := l.AttachSession(ctx)
	in := &api.AttachIn{Vm: "web", Session: ref, Attach: start}
	if err := st.Send(&api.AttachSessionRequest{Msg: &api.AttachSessionRequest_Start{Start: in}}); err != nil {
		l.t.Fatal(err)
	}
	return st
}

// joined is attach, once it has succeeded.
func (l *sessionLife) joined(ctx context.Context, ref string, start *wire.AttachStart) attachStream {
	l.t.Helper()
	st := l.attach(ctx, ref, start)
	if r, err := st.Receive(); err != nil || r.GetSession().GetName() == "" {
		l.t.Fatalf("attached %v, %v", r, err)
	}
	return st
}

func typed(t *testing.T, st attachStream, req *wire.AttachSessionRequest) {
	t.Helper()
	if err := st.Send(&api.AttachSessionRequest{Msg: &api.AttachSessionRequest_Attach{Attach: req}}); err != nil {
		t.Fatal(err)
	}
}

// rest is what comes of an attachment until its end.
func rest(st attachStream) (out string, last *wire.AttachSessionResponse, err error) {
	for {
		r, err := st.Receive()
		if errors.Is(err, io.EOF) {
			return out, last, nil
		}
		if err != nil {
			return out, last, err
		}
		last = r.GetAttach()
		out += string(last.GetOutput().GetData())
	}
}

// A session's whole life, over the API, and over a restart of the daemon.
func TestSession(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	v := create(t, l.c, "web")
	s := l.start("echo", "pipe")
	if s.Status != "running" || s.VmId != v.Id || s.Vm != "web" || s.Command != "cat" || !slices.Equal(s.Args, []string{"-u"}) ||
		s.Env["A"] != "1" || s.User != "root" || s.Stdin != "pipe" || s.GetGuestPid() == 0 || s.ExitCode != nil || s.StartedAt == nil || s.EndedAt != nil || s.LogLimitBytes != 64<<20 {
		t.Errorf("started %v", s)
	}
	if r, err := l.send("echo", "one\n", false); err != nil || r.BytesWritten != 4 {
		t.Errorf("sent %v, %v", r, err)
	}
	l.stop()
	l = w.open()
	defer func() { l.stop() }()
	if r, err := l.send("echo", "two\n", false); err != nil || r.BytesWritten != 4 {
		t.Errorf("sent %v, %v", r, err)
	}
	if text, err := l.logs(&api.SessionLogsRequest{Vm: "web", Session: s.Id[:8]}); err != nil || text != "one\ntwo\n" {
		t.Errorf("logs %q, %v", text, err)
	}
	if r, err := l.send("echo", "", true); err != nil || r.BytesWritten != 0 {
		t.Errorf("sent %v, %v", r, err)
	}
	list, err := l.ListSessions(t.Context(), connect.NewRequest(&api.ListSessionsRequest{Statuses: []string{"exited"}, Tags: []string{"t"}}))
	if err != nil || len(list.Msg.Sessions) != 1 || list.Msg.Sessions[0].ExitCode == nil || list.Msg.Sessions[0].GuestPid != nil {
		t.Errorf("listed %v, %v", list, err)
	}
	_, err = l.send("echo", "", false)
	if errkind.Of(err) != errkind.Conflict || err.Error() != "session is not running (status=exited)" {
		t.Errorf("send: %v", err)
	}
	d, err := l.DeleteSession(t.Context(), connect.NewRequest(&api.DeleteSessionRequest{Vm: "web", Session: "echo"}))
	if err != nil || d.Msg.Session.Id != s.Id || len(w.guest.IDs()) != 0 {
		t.Errorf("deleted %v, %v; the guest has %v", d, err, w.guest.IDs())
	}
}

func TestStopAndKillSession(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	defer l.stop()
	create(t, l.c, "web")
	l.start("a", "")
	l.start("b", "")
	s, err := l.StopSession(t.Context(), connect.NewRequest(&api.StopSessionRequest{Vm: "web", Session: "a"}))
	if err != nil || s.Msg.Session.GetExitCode() != 143 || s.Msg.Session.ExitSignal != "TERM" {
		t.Errorf("stopped %v, %v", s, err)
	}
	k, err := l.KillSession(t.Context(), connect.NewRequest(&api.KillSessionRequest{Vm: "web", Session: "b"}))
	if err != nil || k.Msg.Session.GetExitCode() != 137 || k.Msg.Session.ExitSignal != "KILL" {
		t.Errorf("killed %v, %v", k, err)
	}
}

// The end of a machine ends its sessions, and its deletion their records.
func TestSessionsOfAMachineThatEnds(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	defer l.stop()
	create(t, l.c, "web")
	l.start("a", "pipe")
	if _, err := l.c.VM.Stop(t.Context(), connect.NewRequest(&api.StopRequest{Vm: "web"})); err != nil {
		t.Fatal(err)
	}
	if s := l.show("a"); s.Status != "failed" || s.FailedStage != "run" || s.FailedMessage != "machine stopped" || s.ExitCode != nil || s.EndedAt == nil {
		t.Errorf("shown %v", s)
	}
	_, err := l.send("a", "x", false)
	if errkind.Of(err) != errkind.Conflict || err.Error() != `vm "web" is not running` || !slices.Equal(errkind.Hints(err), []string{"banger vm start web"}) {
		t.Errorf("send: %v, hints %q", err, errkind.Hints(err))
	}
	if _, err := l.logs(&api.SessionLogsRequest{Vm: "web", Session: "a"}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("logs: %v", err)
	}
	if _, err := l.c.VM.Delete(t.Context(), connect.NewRequest(&api.DeleteRequest{Vm: "web"})); err != nil {
		t.Fatal(err)
	}
	if list, err := l.ListSessions(t.Context(), connect.NewRequest(&api.ListSessionsRequest{})); err != nil || len(list.Msg.Sessions) != 0 {
		t.Errorf("listed %v, %v", list, err)
	}
}

func TestAttachSession(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	defer l.stop()
	create(t, l.c, "web")
	s := l.start("a", "pipe")
	w.guest.Write(s.Id, "stdout", "before\n")
	first := l.joined(t.Context(), "a", &wire.AttachStart{Name: "ann\x1b"})
	_, _, err := rest(l.attach(t.Context(), "a", &wire.AttachStart{Name: "bob"}))
	if errkind.Of(err) != errkind.Conflict || err.Error() != "attached already: ann" ||
		!slices.Equal(errkind.Hints(err), []string{"banger vm session attach --take web a", "banger vm session attach --read-only web a"}) {
		t.Errorf("a second one: %v, hints %q", err, errkind.Hints(err))
	}
	reader := l.joined(t.Context(), "a", &wire.AttachStart{ReadOnly: true})
	second := l.joined(t.Context(), "a", &wire.AttachStart{Name: "bob", Take: true})
	if out, last, err := rest(first); err != nil || out != "before\n" || last.GetTaken() != "bob" {
		t.Errorf("the first: %q, %v, %v", out, last, err)
	}
	typed(t, second, &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Stdin{Stdin: []byte("typed\n")}})
	typed(t, second, &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_Start{Start: &wire.AttachStart{Id: s.Id}}}) // one session each
	typed(t, second, &wire.AttachSessionRequest{Msg: &wire.AttachSessionRequest_CloseStdin{CloseStdin: true}})
	for _, st := range []attachStream{second, reader} {
		out, last, err := rest(st)
		if err != nil || out != "before\ntyped\n" || last.GetEnded().GetState() != "exited" || last.GetEnded().GetCode() != 0 {
			t.Errorf("%q, %v, %v", out, last, err)
		}
	}
	if s := l.show("a"); s.Status != "exited" {
		t.Errorf("shown %v", s)
	}
	for _, start := range []*wire.AttachStart{{}, {FromStdout: 1}} {
		if out, last, err := rest(l.joined(t.Context(), "a", start)); err != nil || out == "" || last.GetEnded() == nil {
			t.Errorf("to one that has exited: %q, %v, %v", out, last, err)
		}
	}
}

// A session goes on when who is attached goes away, when the agent is lost, and
// when the daemon ends.
func TestAttachmentThatBreaks(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	create(t, l.c, "web")
	s := l.start("a", "pipe")
	ctx, cancel := context.WithCancel(t.Context())
	l.joined(ctx, "a", &wire.AttachStart{Name: "ann"})
	cancel()
	var st attachStream
	for deadline := time.Now().Add(10 * time.Second); ; {
		st = l.attach(t.Context(), "a", &wire.AttachStart{Name: "bob"})
		if _, err := st.Receive(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("ann is attached still: %v", err)
		}
	}
	w.guest.Break()
	if _, _, err := rest(st); err == nil || !strings.HasPrefix(err.Error(), `lost the agent of "web"; the session goes on: `) {
		t.Errorf("without the agent: %v", err)
	}
	st = l.joined(t.Context(), "a", &wire.AttachStart{Name: "bob", Take: true})
	l.stop()
	if _, _, err := rest(st); !errors.Is(err, api.ErrLost) {
		t.Errorf("without the daemon: %v", err)
	}
	l = w.open()
	defer l.stop()
	if s := l.show("a"); s.Status != "running" {
		t.Errorf("shown %v", s)
	}
	w.guest.End(s.Id, 5, "")
	if s := l.show("a"); s.Status != "exited" || s.GetExitCode() != 5 {
		t.Errorf("shown %v", s)
	}
}

// What the guest says to who is attached is bounded and checked.
func TestAttachToAHostileGuest(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	defer l.stop()
	create(t, l.c, "web")
	s := l.start("a", "pipe")
	st := l.joined(t.Context(), "a", &wire.AttachStart{})
	w.guest.SetMangle(func(s *wire.SessionStatus) { s.Code = 1 << 20 })
	w.guest.Write(s.Id, "stdout", "x") // what it says next is said from here on
	w.guest.End(s.Id, 0, "")
	if _, last, err := rest(st); err == nil || last.GetEnded() != nil {
		t.Errorf("ended by %v, %v", last, err)
	}
	if s := l.show("a"); s.Status != "running" || !strings.Contains(s.LastError, "exit code") {
		t.Errorf("shown %v", s)
	}
}

// First messages that are none are refused.
func TestSessionStreamsWithoutAStart(t *testing.T) {
	w := newSessionWorld(t)
	l := w.open()
	defer l.stop()
	send := l.SendSession(t.Context())
	_ = send.Send(&api.SendSessionRequest{Msg: &api.SendSessionRequest_Data{Data: []byte("x")}})
	if _, err := send.CloseAndReceive(); errkind.Of(err) != errkind.Usage {
		t.Errorf("SendSession = %v", err)
	}
	at := l.AttachSession(t.Context())
	_ = at.Send(&api.AttachSessionRequest{})
	if _, err := at.Receive(); errkind.Of(err) != errkind.Usage {
		t.Errorf("AttachSession = %v", err)
	}
}
