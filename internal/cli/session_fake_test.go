package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

// fakeSessions is a daemon with machines whose sessions are in memory: a
// command is what the test makes of it, but for a few.
//
//	cat     writes what it reads, and ends with its input
//	nosuch  is not there
//	deaf    does not care for INT
//	full    reads nothing
//
// Another ends with INT, TERM and KILL.
type fakeSessions struct {
	api.UnimplementedVMServiceHandler
	api.UnimplementedDaemonServiceHandler
	api.UnimplementedSessionServiceHandler

	t    *testing.T
	root string
	srv  *http.Server

	mu       sync.Mutex
	changed  chan struct{}     // closed with each change
	vms      map[string]string // state by name
	sessions []*fakeSession
	calls    int
}

type fakeSession struct {
	*api.Session
	parts    []fakePart
	size     map[string]int64
	open     bool   // the input
	got      []byte // of it
	sizes    []string
	signals  []string
	attached string
	taken    string // by whom; empty: not
}

type fakePart struct {
	*api.SessionLogsResponse
	at time.Time
}

// newFakeSessions serves machines "web", which runs, and "off", in a root of
// its own.
func newFakeSessions(t *testing.T) *fakeSessions {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bgr-ses-") // short, for the sockets' sake
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	f := &fakeSessions{t: t, root: root, changed: make(chan struct{}), vms: map[string]string{"web": "running", "off": "stopped"}}
	f.serve()
	t.Cleanup(f.kill)
	return f
}

func (f *fakeSessions) serve() {
	paths, err := config.NewPaths(f.root)
	must(f.t, err)
	paths.Run = filepath.Join(f.root, "run")
	must(f.t, os.MkdirAll(paths.SocketDir(), 0o755))
	_ = os.Remove(paths.Socket())
	ln, err := net.Listen("unix", paths.Socket())
	must(f.t, err)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	opt := connect.WithInterceptors(api.NewServerInterceptor(func(string, error) {}))
	mux := http.NewServeMux()
	mux.Handle(api.NewVMServiceHandler(f, opt))
	mux.Handle(api.NewDaemonServiceHandler(f, opt))
	mux.Handle(api.NewSessionServiceHandler(f, opt))
	f.srv = &http.Server{Handler: mux, Protocols: &p}
	go f.srv.Serve(ln)
}

// kill ends the daemon as a crash does; sessions go on.
func (f *fakeSessions) kill() { f.srv.Close() }

// change does something under the lock, and tells all who wait.
func (f *fakeSessions) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until ok holds, which is called under the lock.
func (f *fakeSessions) await(ctx context.Context, ok func() bool) error {
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait is await for tests.
func (f *fakeSessions) wait(what string, ok func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if f.await(ctx, ok) != nil {
		f.t.Fatalf("not in time: %s", what)
	}
}

func (f *fakeSessions) Status(context.Context, *connect.Request[api.StatusRequest]) (*connect.Response[api.StatusResponse], error) {
	return connect.NewResponse(&api.StatusResponse{Pid: int32(os.Getpid())}), nil
}

func (f *fakeSessions) List(context.Context, *connect.Request[api.ListRequest]) (*connect.Response[api.ListResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := &api.ListResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.vms)) {
		list.Vms = append(list.Vms, &api.VM{Name: name, State: f.vms[name]})
	}
	return connect.NewResponse(list), nil
}

// find returns a session. Preconditions: f.mu is held.
func (f *fakeSessions) find(vm, ref string) (*fakeSession, error) {
	if _, ok := f.vms[vm]; !ok {
		return nil, errkind.New(errkind.NotFound, "no machine %q", vm)
	}
	for _, s := range f.sessions {
		if s.Vm == vm && (s.Name == ref || s.Id == ref) {
			return s, nil
		}
	}
	return nil, errkind.New(errkind.NotFound, "no session %q in %q", ref, vm)
}

// up is find in a machine that runs. Preconditions: f.mu is held.
func (f *fakeSessions) up(vm, ref string) (*fakeSession, error) {
	if state, ok := f.vms[vm]; ok && state != "running" {
		return nil, errkind.WithHint(errkind.New(errkind.Conflict, "vm %q is not running", vm), "banger vm start "+vm)
	}
	return f.find(vm, ref)
}

func (f *fakeSessions) StartSession(_ context.Context, req *connect.Request[api.StartSessionRequest]) (*connect.Response[api.StartSessionResponse], error) {
	m := req.Msg
	name := m.Name
	var s *fakeSession
	var err error
	f.change(func() {
		if name == "" {
			name = fmt.Sprintf("made-up-%d", len(f.sessions))
		}
		if _, err = f.up(m.Vm, name); errkind.Of(err) != errkind.NotFound || f.vms[m.Vm] == "" {
			if err == nil {
				err = errkind.New(errkind.Conflict, "there is a session %q in %q", name, m.Vm)
			}
			return
		}
		err = nil
		pid := int32(100 + len(f.sessions))
		s = &fakeSession{Session: &api.Session{
			Id: fmt.Sprintf("%032x", len(f.sessions)+1), Name: name, Vm: m.Vm, Command: m.Command.Argv[0], Args: m.Command.Argv[1:],
			Cwd: m.Command.Cwd, Env: m.Command.Env, User: m.Command.User, Stdin: m.Stdin, Tags: m.Tags, RequiredCommands: m.RequiredCommands,
			Status: "running", GuestPid: &pid, CreatedAt: timestamppb.Now(), StartedAt: timestamppb.Now(), LogLimitBytes: m.LogLimitBytes,
		}, size: make(map[string]int64), open: m.Stdin != "closed"}
		if tty := m.Command.GetTty(); tty != nil {
			s.sizes = append(s.sizes, sizeText(tty.Size))
		}
		for _, c := range append([]string{s.Command}, s.RequiredCommands...) {
			if c == "nosuch" {
				s.Status, s.GuestPid, s.StartedAt, s.EndedAt = "failed", nil, nil, timestamppb.Now()
				s.FailedStage, s.FailedMessage = "check", `"nosuch": not found in PATH`
			}
		}
		f.sessions = append(f.sessions, s)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.StartSessionResponse{Session: f.copy(s)}), nil
}

func sizeText(s *wire.WindowSize) string { return fmt.Sprintf("%d %d", s.GetRows(), s.GetCols()) }

func (f *fakeSessions) copy(s *fakeSession) *api.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return proto.Clone(s.Session).(*api.Session)
}

func (f *fakeSessions) ListSessions(_ context.Context, req *connect.Request[api.ListSessionsRequest]) (*connect.Response[api.ListSessionsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.vms[req.Msg.Vm]; req.Msg.Vm != "" && !ok {
		return nil, errkind.New(errkind.NotFound, "no machine %q", req.Msg.Vm)
	}
	list := &api.ListSessionsResponse{}
	for _, s := range f.sessions {
		lacks := func(tag string) bool { return !slices.Contains(s.Tags, tag) }
		if req.Msg.Vm != "" && s.Vm != req.Msg.Vm || slices.ContainsFunc(req.Msg.Tags, lacks) ||
			len(req.Msg.Statuses) > 0 && !slices.Contains(req.Msg.Statuses, s.Status) {
			continue
		}
		list.Sessions = append(list.Sessions, proto.Clone(s.Session).(*api.Session))
	}
	return connect.NewResponse(list), nil
}

func (f *fakeSessions) ShowSession(_ context.Context, req *connect.Request[api.ShowSessionRequest]) (*connect.Response[api.ShowSessionResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(req.Msg.Vm, req.Msg.Session)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.ShowSessionResponse{Session: proto.Clone(s.Session).(*api.Session)}), nil
}

// write adds to a stream of a session.
func (f *fakeSessions) write(name, stream, data string) {
	f.change(func() { must1(f.find("web", name))(f.t).write(stream, data, false) })
}

// Preconditions: f.mu is held.
func (s *fakeSession) write(stream, data string, mark bool) {
	s.parts = append(s.parts, fakePart{&api.SessionLogsResponse{
		Session: s.Id, Stream: stream, Path: "/s/" + stream + ".log", Content: []byte(data), Offset: s.size[stream], Mark: mark,
	}, time.Now()})
	if !mark {
		s.size[stream] += int64(len(data))
	}
}

// session returns a session of web's, to be looked at in change and wait.
func (f *fakeSessions) session(name string) *fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return must1(f.find("web", name))(f.t)
}

// now is a session of web's as it is now.
func (f *fakeSessions) now(name string) fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := must1(f.find("web", name))(f.t)
	return fakeSession{
		Session: proto.Clone(s.Session).(*api.Session), parts: slices.Clone(s.parts), open: s.open, attached: s.attached,
		got: slices.Clone(s.got), sizes: slices.Clone(s.sizes), signals: slices.Clone(s.signals),
	}
}

// end ends a session with an exit code.
func (f *fakeSessions) end(name string, code int32) {
	f.change(func() { must1(f.find("web", name))(f.t).exit(code, "") })
}

// Preconditions: f.mu is held.
func (s *fakeSession) exit(code int32, signal string) {
	if s.ended() {
		return
	}
	s.Status, s.GuestPid, s.ExitCode, s.ExitSignal, s.EndedAt, s.open = "exited", nil, &code, signal, timestamppb.Now(), false
}

func (s *fakeSession) ended() bool { return s.Status == "exited" || s.Status == "failed" }

// input is what the command makes of its input. Preconditions: f.mu is held.
func (s *fakeSession) input(data []byte, end bool) {
	if !s.open {
		return
	}
	s.got = append(s.got, data...)
	if s.Command == "cat" && len(data) > 0 {
		s.write("stdout", string(data), false)
	}
	if end {
		s.open = false
		if s.Command == "cat" {
			s.exit(0, "")
		}
	}
}

// signal is what the command makes of a signal. Preconditions: f.mu is held.
func (s *fakeSession) signal(name string) {
	s.signals = append(s.signals, name)
	code, ok := map[string]int32{"INT": 130, "TERM": 143, "KILL": 137}[name]
	if ok && !(name == "INT" && s.Command == "deaf") {
		s.exit(code, name)
	}
}

// from returns the parts that a reader of streams gets who begins with tail
// lines of each, or goes on. Preconditions: f.mu is held.
func (s *fakeSession) from(streams []string, tail int, since time.Time, goOn map[string]int64) []int {
	var which []int
	lines := make(map[string]int)
	for i := len(s.parts) - 1; i >= 0; i-- {
		p := s.parts[i]
		at := goOn[p.Stream]
		lines[p.Stream]++
		switch {
		case !slices.Contains(streams, p.Stream):
		case at > 0 && p.Offset+int64(len(p.Content)) >= at, at == 0 && lines[p.Stream] <= tail && p.at.After(since):
			which = append([]int{i}, which...)
		}
	}
	return which
}

// follow sends the parts and what comes after them, and returns when the
// session has ended, if it is followed.
func (f *fakeSessions) follow(ctx context.Context, s *fakeSession, streams []string, first func() []int, on bool, send func(*api.SessionLogsResponse) error) error {
	f.mu.Lock()
	which, next := first(), len(s.parts)
	f.mu.Unlock()
	for {
		for _, i := range which {
			f.mu.Lock()
			p := s.parts[i]
			f.mu.Unlock()
			if err := send(p.SessionLogsResponse); err != nil {
				return err
			}
		}
		which = nil
		over := !on
		if err := f.await(ctx, func() bool {
			for ; next < len(s.parts); next++ {
				if slices.Contains(streams, s.parts[next].Stream) && on {
					which = append(which, next)
				}
			}
			over = over || s.ended() || s.taken != ""
			return over || len(which) > 0
		}); err != nil {
			return err
		}
		if over && len(which) == 0 {
			return nil
		}
	}
}

func (f *fakeSessions) SessionLogs(ctx context.Context, req *connect.Request[api.SessionLogsRequest], stream *connect.ServerStream[api.SessionLogsResponse]) error {
	m := req.Msg
	f.mu.Lock()
	f.calls++
	s, err := f.find(m.Vm, m.Session)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	streams := []string{m.Stream}
	if m.Stream == "both" {
		streams = []string{"stdout", "stderr"}
	}
	tail := int(m.Tail)
	if tail <= 0 {
		tail = 200
	}
	if m.All {
		tail = 1 << 30
	}
	var since time.Time
	if m.Since != nil {
		since = m.Since.AsTime()
	}
	first := func() []int {
		return s.from(streams, tail, since, map[string]int64{"stdout": m.FromStdout, "stderr": m.FromStderr})
	}
	return f.follow(ctx, s, streams, first, m.Follow, stream.Send)
}

func (f *fakeSessions) SendSession(ctx context.Context, stream *connect.ClientStream[api.SendSessionRequest]) (*connect.Response[api.SendSessionResponse], error) {
	if !stream.Receive() {
		return nil, stream.Err()
	}
	in := stream.Msg().GetStart()
	f.mu.Lock()
	s, err := f.up(in.Vm, in.Session)
	switch {
	case err != nil:
	case s.ended():
		err = errkind.New(errkind.Conflict, "session is not running (status=%s)", s.Status)
	case s.Stdin == "closed":
		err = errkind.New(errkind.Conflict, "session does not have a stdin pipe")
	}
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for stream.Receive() {
		all.Write(stream.Msg().GetData())
	}
	if stream.Err() != nil {
		return nil, stream.Err()
	}
	resp := &api.SendSessionResponse{BytesWritten: int64(all.Len())}
	f.change(func() {
		if s.Command == "full" {
			resp.BytesWritten, resp.TimedOut = 1, true
			return
		}
		s.input(all.Bytes(), in.Eof)
	})
	return connect.NewResponse(resp), nil
}

func (f *fakeSessions) AttachSession(ctx context.Context, stream *connect.BidiStream[api.AttachSessionRequest, api.AttachSessionResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	in := first.GetStart()
	at := in.GetAttach()
	var s *fakeSession
	f.change(func() {
		f.calls++
		if s, err = f.up(in.Vm, in.Session); err != nil || at.ReadOnly {
			return
		}
		if s.attached != "" && !at.Take {
			err = errkind.New(errkind.Conflict, "%s is attached already", s.attached)
			return
		}
		if s.attached != "" {
			s.taken = at.Name
		}
		if at.Size != nil {
			s.sizes = append(s.sizes, sizeText(at.Size))
		}
	})
	if err != nil {
		return err
	}
	if !at.ReadOnly {
		if err := f.await(ctx, func() bool { return s.attached == "" }); err != nil {
			return err
		}
		f.change(func() { s.attached, s.taken = at.Name, "" })
		defer f.change(func() { s.attached = "" })
	}
	if err := stream.Send(&api.AttachSessionResponse{Msg: &api.AttachSessionResponse_Session{Session: f.copy(s)}}); err != nil {
		return err
	}
	return f.serveAttached(ctx, s, at, stream)
}

func (f *fakeSessions) serveAttached(ctx context.Context, s *fakeSession, at *wire.AttachStart, stream *connect.BidiStream[api.AttachSessionRequest, api.AttachSessionResponse]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := false // guarded by f.mu
	go func() {
		defer cancel()
		for {
			req, err := stream.Receive()
			if err != nil {
				f.change(func() { gone = errors.Is(err, io.EOF) })
				return
			}
			f.change(func() {
				switch m := req.GetAttach().GetMsg().(type) {
				case *wire.AttachSessionRequest_Stdin:
					s.input(m.Stdin, false)
				case *wire.AttachSessionRequest_CloseStdin:
					s.input(nil, true)
				case *wire.AttachSessionRequest_Resize:
					s.sizes = append(s.sizes, sizeText(m.Resize))
				case *wire.AttachSessionRequest_Signal:
					s.signal(m.Signal)
				}
			})
		}
	}()
	send := func(m *wire.AttachSessionResponse) error {
		return stream.Send(&api.AttachSessionResponse{Msg: &api.AttachSessionResponse_Attach{Attach: m}})
	}
	streams := []string{"stdout", "stderr"}
	first := func() []int {
		return s.from(streams, int(at.Tail), time.Time{}, map[string]int64{"stdout": at.FromStdout, "stderr": at.FromStderr})
	}
	err := f.follow(ctx, s, streams, first, true, func(p *api.SessionLogsResponse) error {
		return send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Output{Output: &wire.SessionLogsResponse{
			Stream: p.Stream, Offset: p.Offset, Data: p.Content, Mark: p.Mark,
		}}})
	})
	f.mu.Lock()
	left, taken, now := gone, s.taken, proto.Clone(s.Session).(*api.Session)
	f.mu.Unlock()
	switch {
	case left:
		return nil
	case err != nil:
		return err
	case taken != "" && !at.ReadOnly:
		return send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Taken{Taken: taken}})
	}
	return send(&wire.AttachSessionResponse{Msg: &wire.AttachSessionResponse_Ended{Ended: &wire.SessionStatus{
		State: now.Status, Code: now.GetExitCode(), Signal: now.ExitSignal, Stage: now.FailedStage, Message: now.FailedMessage,
	}}})
}

// do does something to a session of a machine that runs.
func (f *fakeSessions) do(vm, ref string, what func(*fakeSession)) (s *api.Session, err error) {
	f.change(func() {
		var fs *fakeSession
		if fs, err = f.up(vm, ref); err == nil {
			what(fs)
			s = proto.Clone(fs.Session).(*api.Session)
		}
	})
	return s, err
}

func (f *fakeSessions) StopSession(_ context.Context, req *connect.Request[api.StopSessionRequest]) (*connect.Response[api.StopSessionResponse], error) {
	s, err := f.do(req.Msg.Vm, req.Msg.Session, func(s *fakeSession) { s.signal("TERM") })
	return connect.NewResponse(&api.StopSessionResponse{Session: s}), err
}

func (f *fakeSessions) KillSession(_ context.Context, req *connect.Request[api.KillSessionRequest]) (*connect.Response[api.KillSessionResponse], error) {
	s, err := f.do(req.Msg.Vm, req.Msg.Session, func(s *fakeSession) { s.signal(req.Msg.Signal) })
	return connect.NewResponse(&api.KillSessionResponse{Session: s}), err
}

func (f *fakeSessions) DeleteSession(_ context.Context, req *connect.Request[api.DeleteSessionRequest]) (*connect.Response[api.DeleteSessionResponse], error) {
	s, err := f.do(req.Msg.Vm, req.Msg.Session, func(s *fakeSession) {
		s.signal("KILL")
		f.sessions = slices.DeleteFunc(f.sessions, func(o *fakeSession) bool { return o == s })
	})
	return connect.NewResponse(&api.DeleteSessionResponse{Session: s}), err
}

// program returns banger, to be run with args. It starts no other daemon.
func (f *fakeSessions) program(args ...string) *exec.Cmd {
	c := program(f.root, args...)
	c.Env = append(c.Env, "NOT_ROOT=1")
	return c
}

// run runs banger to its end, with input.
func (f *fakeSessions) run(in string, args ...string) (code int, out, errs string) {
	f.t.Helper()
	c := f.program(args...)
	var o, e bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(in), &o, &e
	_ = c.Run()
	return c.ProcessState.ExitCode(), o.String(), e.String()
}

// want runs banger and compares.
func (f *fakeSessions) want(code int, out, errs string, args ...string) {
	f.t.Helper()
	if c, o, e := f.run("", args...); c != code || o != out || e != errs {
		f.t.Errorf("banger %q: exit %d, %q, %q, want %d, %q, %q", args, c, o, e, code, out, errs)
	}
}
