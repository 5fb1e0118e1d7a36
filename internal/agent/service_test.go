package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

const testToken = "0123456789abcdef0123456789abcdef"

// testLog shows what the agent logs if the test fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// dialAgent serves o over a socket, as the daemon reaches it, until the test
// ends.
func dialAgent(t *testing.T, o ServeOptions) guest.Agent {
	t.Helper()
	o.Bundle.Token, o.Role, o.Log = testToken, "service", testLog(t)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = s.ServeStream(context.Background(), c)
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: path, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		if err := <-done; err != nil && !errors.Is(err, io.EOF) {
			t.Logf("agent: %v", err)
		}
	})
	return a
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A run is one command as a client sees it.
type run struct {
	st             *connect.BidiStreamForClient[wire.ExecRequest, wire.ExecResponse]
	pid            int
	stdout, stderr []byte
}

func startRun(t *testing.T, ctx context.Context, a guest.Agent, start *wire.ExecStart) *run {
	t.Helper()
	r := &run{st: a.Exec(ctx)}
	r.send(t, &wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: start}})
	return r
}

func (r *run) send(t *testing.T, m *wire.ExecRequest) {
	t.Helper()
	if err := r.st.Send(m); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("send: %v", err)
	}
}

// until receives until stop or the end, and returns how it ended.
func (r *run) until(t *testing.T, stop func() bool) *wire.ExecExit {
	t.Helper()
	for !stop() {
		m, err := r.st.Receive()
		if err != nil {
			t.Fatalf("receive: %v (stdout %q, stderr %q)", err, r.stdout, r.stderr)
		}
		r.stdout = append(r.stdout, m.GetStdout()...)
		r.stderr = append(r.stderr, m.GetStderr()...)
		if s := m.GetStarted(); s != nil {
			r.pid = int(s.GetPid())
		}
		if x := m.GetExit(); x != nil {
			if _, err := r.st.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("after the exit: %v", err)
			}
			return x
		}
	}
	return nil
}

func (r *run) end(t *testing.T) *wire.ExecExit {
	t.Helper()
	return r.until(t, func() bool { return false })
}

func sh(script string) *wire.ExecStart {
	return &wire.ExecStart{Argv: []string{"sh", "-c", script}, Cwd: "/"}
}
