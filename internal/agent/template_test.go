package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

// A fakeSystem notes what is done to it, and does as a systemd would whose units
// are active that it names.
type fakeSystem struct {
	mu     sync.Mutex
	did    []string
	fail   map[string]error // by the first word of what is done
	states []string         // what is-system-running says, one after the other; at last "running"
	active []string         // units
	none   bool             // there is no systemd
	kept   wire.Bundle
}

func (f *fakeSystem) do(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	f.did = append(f.did, line)
	word, _, _ := strings.Cut(line, " ")
	return f.fail[word]
}

// take returns what was done since the last call.
func (f *fakeSystem) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	did := f.did
	f.did = nil
	return did
}

func (f *fakeSystem) set(op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = map[string]error{op: err}
}

func (f *fakeSystem) Seed(entropy []byte) error { return f.do("seed %d", len(entropy)) }

func (f *fakeSystem) SetHostname(name string) error { return f.do("hostname %s", name) }

func (f *fakeSystem) Quiet(context.Context) error { return f.do("quiet") }

func (f *fakeSystem) Hurry(on bool) error { return f.do("hurry %t", on) }

func (f *fakeSystem) Grow(_ context.Context, m wire.Mount) error {
	return f.do("grow %s %d", m.Target, m.SizeBytes)
}

func (f *fakeSystem) SetFiles(b wire.Bundle) error { return f.do("files %s", b.Hostname) }

func (f *fakeSystem) SetNetwork(nics []wire.NIC) error { return f.do("network %d", len(nics)) }

func (f *fakeSystem) SetName(b wire.Bundle) error { return f.do("name %s", b.Hostname) }

func (f *fakeSystem) Keep(bundle []byte) (err error) {
	f.kept, err = wire.DecodeBundle(bundle)
	return errors.Join(err, f.do("keep %s", f.kept.Hostname))
}

func (f *fakeSystem) MoveJournal(from, to string) error { return f.do("journal %.2s %.2s", from, to) }

func (f *fakeSystem) Systemctl(ctx context.Context, args ...string) (string, error) {
	if f.none {
		return "", errNoSystemd
	}
	err := errors.Join(ctx.Err(), f.do("%s", strings.Join(args, " ")))
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch args[0] {
	case "is-system-running":
		if len(f.states) == 0 {
			return "running\n", nil
		}
		state := f.states[0]
		f.states = f.states[1:]
		return state + "\n", exitError(1)
	case "is-active":
		out := ""
		for _, unit := range args[1:] {
			state := "inactive\n"
			if slices.Contains(f.active, unit) {
				state = "active\n"
			}
			out += state
		}
		return out, exitError(3)
	case "stop":
		f.active = slices.DeleteFunc(f.active, func(u string) bool { return slices.Contains(args[1:], u) })
	case "start":
		f.active = append(f.active, args[1:]...)
	}
	return "", nil
}

// templateBundle is what a template is booted with.
func templateBundle() wire.Bundle {
	return wire.Bundle{
		Template:  true,
		Hostname:  "template",
		MachineID: strings.Repeat("77", 16),
		Token:     testToken,
		Root:      wire.Mount{Serial: "root", FSType: "ext4"},
		Mounts: []wire.Mount{
			{Serial: "work", Target: "/root", FSType: "ext4", SizeBytes: 1 << 29, Fill: true},
			{Serial: "modules", Target: "/lib/modules/6.1", FSType: "ext4", ReadOnly: true},
		},
		Init: "/sbin/init",
	}
}

const machineToken = "fedcba9876543210fedcba9876543210"

// machineBundle is that of a machine of the template.
func machineBundle() wire.Bundle {
	b := templateBundle()
	b.Template, b.Hostname, b.MachineID, b.Token = false, "web", strings.Repeat("0a", 16), machineToken
	b.Mounts[0].SizeBytes = 1 << 30
	b.NICs = []wire.NIC{{MAC: "02:ba:00:00:00:02", Addrs: []string{"10.0.0.2/24"}, Gateway: "10.0.0.1"}}
	b.Env = []string{"WHO=web"}
	return b
}

// identifyRequest asks for b; a bundle that cannot be encoded is not JSON.
func identifyRequest(b wire.Bundle) *connect.Request[wire.IdentifyRequest] {
	data, _ := b.Encode()
	return connect.NewRequest(&wire.IdentifyRequest{BundleJson: data, UnixNs: 1e18, Entropy: make([]byte, minEntropy)})
}

// dialTemplate serves a template. What is done, the clock included, sys notes.
func dialTemplate(t *testing.T, sys *fakeSystem) guest.Agent {
	t.Helper()
	return dialAgent(t, templateOptions(sys))
}

func templateOptions(sys *fakeSystem) ServeOptions {
	return ServeOptions{
		Bundle: templateBundle(), System: sys,
		SetClock: func(to time.Time) error { return sys.do("clock %d", to.UnixNano()) },
		Sync:     func() { _ = sys.do("sync") },
	}
}

// call calls a method of the agent with empty messages, and returns its error.
func call(ctx context.Context, a guest.Agent, m protoreflect.MethodDescriptor) error {
	f := reflect.ValueOf(a).MethodByName(string(m.Name()))
	in := []reflect.Value{reflect.ValueOf(ctx)}
	if !m.IsStreamingClient() {
		req := reflect.New(f.Type().In(1).Elem())
		msg := req.Elem().FieldByName("Msg")
		msg.Set(reflect.New(msg.Type().Elem()))
		in = append(in, req)
	}
	out := f.Call(in)
	if !m.IsStreamingClient() {
		if err, _ := out[1].Interface().(error); err != nil || !m.IsStreamingServer() {
			return err
		}
		st := out[0].Interface().(interface {
			Receive() bool
			Err() error
		})
		for st.Receive() {
		}
		return st.Err()
	}
	if m.IsStreamingServer() {
		// Its request has to be sent for the answer to come.
		out[0].MethodByName("CloseRequest").Call(nil)
		err, _ := out[0].MethodByName("Receive").Call(nil)[1].Interface().(error)
		return err
	}
	err, _ := out[0].MethodByName("CloseAndReceive").Call(nil)[1].Interface().(error)
	return err
}

// methods are all calls that there are.
func methods() protoreflect.MethodDescriptors {
	return wire.File_banger_agent_v1_agent_proto.Services().ByName("AgentService").Methods()
}

// refused returns the calls that are refused for what the guest is, as names.
func refused(t *testing.T, a guest.Agent, except ...string) []string {
	t.Helper()
	var out []string
	for i := range methods().Len() {
		m := methods().Get(i)
		name := string(m.Name())
		if slices.Contains(except, name) {
			continue
		}
		err := call(testContext(t), a, m)
		if connect.CodeOf(err) == connect.CodeFailedPrecondition && strings.Contains(err.Error(), "no identity") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// all returns the names of all calls but some.
func all(except ...string) []string {
	var out []string
	for i := range methods().Len() {
		if name := string(methods().Get(i).Name()); !slices.Contains(except, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// TestTemplateRefuses calls everything there is, also what there will be.
func TestTemplateRefuses(t *testing.T) {
	a := dialTemplate(t, &fakeSystem{})
	// Identify has its own test: one that fails changes what is refused.
	allowed := []string{"Info", "Wake", "Settle", "Identify"}
	if d := cmp.Diff(all(allowed...), refused(t, a, "Identify")); d != "" {
		t.Error(d)
	}
	if len(all(allowed...)) < 10 {
		t.Errorf("all calls are %v", all())
	}
}

func TestMachineRefusesTemplateCalls(t *testing.T) {
	sys := &fakeSystem{}
	a := dialAgent(t, ServeOptions{System: sys, Power: func(bool) {}, SetClock: func(time.Time) error { return nil }})
	for _, name := range []string{"Settle", "Identify", "Finish"} {
		err := call(testContext(t), a, methods().ByName(protoreflect.Name(name)))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%s = %v", name, err)
		}
	}
	if _, err := a.Info(testContext(t), connect.NewRequest(&wire.InfoRequest{})); err != nil {
		t.Error(err)
	}
	if did := sys.take(); len(did) != 0 {
		t.Errorf("did %q", did)
	}
}

func TestIdentify(t *testing.T) {
	sys := &fakeSystem{}
	a := dialTemplate(t, sys)
	ctx := testContext(t)
	if _, err := a.Identify(ctx, identifyRequest(machineBundle())); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"seed 32", "grow /root 1073741824", "clock 1000000000000000000", "hostname web", "files web", "network 1", "journal 77 0a", "keep web",
		"hurry true", // one that is settled does so already
	}
	if d := cmp.Diff(want, sys.take()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(machineBundle(), sys.kept); d != "" {
		t.Errorf("kept: %s", d)
	}
	r := startRun(t, ctx, a, sh("echo $WHO"))
	if x := r.end(t); x.GetCode() != 0 || string(r.stdout) != "web\n" {
		t.Errorf("exec: %v, %q", x, r.stdout)
	}
	// Once, and no template any more.
	for _, name := range []string{"Identify", "Settle"} {
		if err := call(ctx, a, methods().ByName(protoreflect.Name(name))); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%s again = %v", name, err)
		}
	}
	if did := sys.take(); len(did) != 0 {
		t.Errorf("then did %q", did)
	}
}

// TestIdentifyFails lets each step fail: the steps after it are not taken, and
// the guest is good for nothing.
func TestIdentifyFails(t *testing.T) {
	for _, op := range []string{"seed", "grow", "clock", "hostname", "files", "network", "journal", "keep"} {
		sys := &fakeSystem{}
		sys.set(op, errors.New("no "+op))
		a := dialTemplate(t, sys)
		ctx := testContext(t)
		_, err := a.Identify(ctx, identifyRequest(machineBundle()))
		if connect.CodeOf(err) != connect.CodeInternal || !strings.Contains(err.Error(), "no "+op) {
			t.Errorf("%s: Identify = %v", op, err)
		}
		did := sys.take()
		if !strings.HasPrefix(did[len(did)-1], op) {
			t.Errorf("%s: did %q", op, did)
		}
		sys.set(op, nil)
		if d := cmp.Diff(all("Info"), refused(t, a)); d != "" {
			t.Errorf("%s: %s", op, d)
		}
		if did := sys.take(); len(did) != 0 {
			t.Errorf("%s: then did %q", op, did)
		}
	}
}

// TestIdentifyRefuses: what makes no sense is not begun, and ends the guest too.
func TestIdentifyRefuses(t *testing.T) {
	for name, change := range map[string]func(*wire.IdentifyRequest, *wire.Bundle){
		"no JSON":          func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Hostname = "" },
		"a template":       func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Template, b.NICs = true, nil },
		"no time":          func(r *wire.IdentifyRequest, _ *wire.Bundle) { r.UnixNs = 0 },
		"little entropy":   func(r *wire.IdentifyRequest, _ *wire.Bundle) { r.Entropy = make([]byte, minEntropy-1) },
		"much entropy":     func(r *wire.IdentifyRequest, _ *wire.Bundle) { r.Entropy = make([]byte, maxEntropy+1) },
		"its token":        func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Token = testToken },
		"its machine id":   func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.MachineID = templateBundle().MachineID },
		"another init":     func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Init = "/init" },
		"another end":      func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.EndByReboot = true },
		"another port":     func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.VsockPort = 7 },
		"another root":     func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Root.Serial = "other" },
		"another kernel":   func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Mounts[1].Target = "/lib/modules/6.2" },
		"no kernel's disk": func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Mounts = b.Mounts[:1] },
		"no work disk":     func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Mounts = b.Mounts[1:] },
		"a smaller disk":   func(_ *wire.IdentifyRequest, b *wire.Bundle) { b.Mounts[0].SizeBytes = 1<<29 - 1 },
	} {
		sys := &fakeSystem{}
		a := dialTemplate(t, sys)
		b := machineBundle()
		r := identifyRequest(b)
		change(r.Msg, &b)
		r.Msg.BundleJson, _ = b.Encode()
		if _, err := a.Identify(testContext(t), r); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: Identify = %v", name, err)
		}
		if did := sys.take(); len(did) != 0 {
			t.Errorf("%s: did %q", name, did)
		}
		if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%s: then Identify = %v", name, err)
		}
	}
}

// TestIdentifyOnce: of many at a time, one is carried out.
func TestIdentifyOnce(t *testing.T) {
	sys := &fakeSystem{}
	a := dialTemplate(t, sys)
	var calls sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		calls.Go(func() {
			_, err := a.Identify(testContext(t), identifyRequest(machineBundle()))
			errs <- err
		})
	}
	calls.Wait()
	close(errs)
	ok := 0
	for err := range errs {
		if err == nil {
			ok++
		} else if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Error(err)
		}
	}
	if did := sys.take(); ok != 1 || len(did) != 9 {
		t.Errorf("%d succeeded, did %q", ok, did)
	}
}

// TestTokenChanges: who greets after Identify needs the new token, and who had
// greeted goes on.
func TestTokenChanges(t *testing.T) {
	sys := &fakeSystem{}
	o := templateOptions(sys)
	o.Role, o.Log = "service", testLog(t)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	path := serveSockets(t, s)
	dial := func(token string, limit time.Duration) (guest.Agent, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: path, Token: token})
	}
	a, err := dial(testToken, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if early, err := dial(machineToken, 200*time.Millisecond); err == nil {
		early.Close()
		t.Error("the machine's token was taken before it has its identity")
	}
	if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); err != nil {
		t.Fatal(err)
	}
	if late, err := dial(testToken, 200*time.Millisecond); err == nil {
		late.Close()
		t.Error("the template's token was taken after the machine has its identity")
	}
	b, err := dial(machineToken, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, agent := range []guest.Agent{a, b} {
		if x := startRun(t, testContext(t), agent, sh("exit 3")).end(t); x.GetCode() != 3 {
			t.Errorf("exit %v", x)
		}
	}
}

// serveSockets serves any number of connections to a socket, until the test
// ends.
func serveSockets(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { _ = s.ServeStream(ctx, c) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); conns.Wait() })
	return path
}

// TestTokenChangesOnOneStream: a virtio-serial port stays, whoever comes and
// goes on the host.
func TestTokenChangesOnOneStream(t *testing.T) {
	o := templateOptions(&fakeSystem{})
	o.Role, o.Log = "service", testLog(t)
	s, err := New(o)
	must(t, err)
	ours, theirs, err := socketPair()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.ServeStream(ctx, theirs)
	}()
	t.Cleanup(func() { cancel(); ours.Close(); <-served })
	dial := func(token string, limit time.Duration) (guest.Agent, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return transport.Over(ctx, &tenant{Conn: ours}, token)
	}
	a, err := dial(testToken, 20*time.Second)
	must(t, err)
	if _, err := a.Identify(testContext(t), identifyRequest(machineBundle())); err != nil {
		t.Fatal(err)
	}
	if x := startRun(t, testContext(t), a, sh("exit 3")).end(t); x.GetCode() != 3 {
		t.Errorf("exit %v", x)
	}
	must(t, a.Close())
	if late, err := dial(testToken, 200*time.Millisecond); err == nil {
		late.Close()
		t.Error("the template's token was taken after the machine has its identity")
	}
	b, err := dial(machineToken, 20*time.Second)
	must(t, err)
	defer b.Close()
	if x := startRun(t, testContext(t), b, sh("exit 4")).end(t); x.GetCode() != 4 {
		t.Errorf("exit %v", x)
	}
}

// A tenant is one host connection on a stream that stays open after it.
type tenant struct {
	net.Conn
	left atomic.Bool
	mu   sync.Mutex // held by Read
}

func (c *tenant) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Read(b)
}

func (c *tenant) Write(b []byte) (int, error) {
	if c.left.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

func (c *tenant) Close() error {
	c.left.Store(true)
	c.Conn.SetReadDeadline(time.Unix(1, 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetDeadline(time.Time{})
}
