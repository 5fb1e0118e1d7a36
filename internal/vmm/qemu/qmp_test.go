package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"banger/internal/vmm"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// pretendQMP is the other end of a QMP connection.
type pretendQMP struct {
	net.Conn
	answer func(command string) string // what stands beside "id"; empty: nothing is sent
	cid    uint32                      // of the guest on vsock; 0: it has none

	mu    sync.Mutex
	calls []string // guarded by mu
}

// newPretendQMP returns a server and the client's end. Answer may be nil.
func newPretendQMP(answer func(command string) string) (*pretendQMP, net.Conn) {
	ours, theirs := net.Pipe()
	p := &pretendQMP{Conn: theirs, answer: answer}
	go p.serve()
	return p, ours
}

func (p *pretendQMP) serve() {
	defer p.Close()
	p.say(greeting)
	for lines := bufio.NewScanner(p.Conn); lines.Scan(); {
		var c struct {
			Execute   string
			Arguments map[string]string
			ID        uint64
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return
		}
		p.mu.Lock()
		p.calls = append(p.calls, c.Execute)
		p.mu.Unlock()
		answer := `"return": {}`
		switch {
		case c.Execute == "qom-get" && p.cid != 0 && c.Arguments["path"] == vsockPath && c.Arguments["property"] == "guest-cid":
			answer = fmt.Sprintf(`"return": %d`, p.cid)
		case c.Execute == "qom-get":
			answer = `"error": {"class": "DeviceNotFound", "desc": "Device not found"}`
		case c.Execute != "qmp_capabilities" && p.answer != nil:
			answer = p.answer(c.Execute)
		}
		if answer != "" {
			p.say(fmt.Sprintf(`{"id": %d, %s}`, c.ID, answer))
		}
	}
}

// say sends a line; that nobody reads it any more is no matter.
func (p *pretendQMP) say(line string) { _, _ = io.WriteString(p.Conn, line+"\r\n") }

func (p *pretendQMP) called() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.calls, " ")
}

func status(s string) string { return fmt.Sprintf(`"return": {"status": %q, "running": false}`, s) }

func openMachine(t *testing.T, conn net.Conn) *machine {
	t.Helper()
	m := &machine{spec: vmm.Spec{ConsoleLog: t.TempDir() + "/console.log"}}
	if err := m.open(t.Context(), conn); err != nil {
		t.Fatalf("open = %v", err)
	}
	return m
}

func TestMachineStatus(t *testing.T) {
	for qemu, want := range map[string]vmm.Status{
		"running": vmm.Running, "paused": vmm.Paused, "prelaunch": vmm.Paused, "shutdown": vmm.Ended,
		"internal-error": vmm.Ended, "guest-panicked": vmm.Ended, "no such state": vmm.Paused, "io-error": vmm.IOError,
	} {
		p, conn := newPretendQMP(func(string) string { return status(qemu) })
		m := openMachine(t, conn)
		if got, err := m.Status(t.Context()); err != nil || got != want {
			t.Errorf("Status of %q = %q, %v, want %q", qemu, got, err, want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		p.Close()
	}
}

// The agent is where this QEMU has it, whoever launched it and how.
func TestMachineAgent(t *testing.T) {
	for cid, want := range map[uint32]vmm.Endpoint{
		0:       {Kind: vmm.Serial, Path: "/r/agent.sock"},
		1 << 31: {Kind: vmm.Vsock, CID: 1 << 31, Port: vmm.AgentPort},
	} {
		ours, theirs := net.Pipe()
		p := &pretendQMP{Conn: theirs, cid: cid}
		go p.serve()
		m := openMachine(t, ours)
		m.spec.AgentSock, m.spec.VsockCID = "/r/agent.sock", 3
		if got := m.Agent(); got != want {
			t.Errorf("Agent = %+v, want %+v", got, want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		p.Close()
	}
}

func TestMachineExit(t *testing.T) {
	for reason, want := range map[string]vmm.Exit{
		"guest-shutdown": vmm.ExitPowerOff, "guest-reset": vmm.ExitReboot, "guest-panic": vmm.ExitPanic,
		"host-signal": vmm.ExitHost, "host-qmp-quit": vmm.ExitHost, "host-error": vmm.ExitUnknown, "": vmm.ExitUnknown,
	} {
		p, conn := newPretendQMP(func(string) string { return status("running") })
		m := openMachine(t, conn)
		if reason != "" {
			p.say(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "` + reason + `"}, "timestamp": {"seconds": 1}}`)
		}
		p.Close()
		<-m.Done()
		if got := m.Exit(); got != want {
			t.Errorf("Exit after %q = %q, want %q", reason, got, want)
		}
		if _, err := m.Status(t.Context()); err == nil {
			t.Error("Status after the end succeeded")
		}
		if err := errors.Join(m.Close(), m.Close()); err != nil {
			t.Error(err)
		}
	}
}

// That a guest comes to stand or goes on is told once, however often it does
// before somebody asks.
func TestMachineChanged(t *testing.T) {
	p, conn := newPretendQMP(func(string) string { return status("io-error") })
	m := openMachine(t, conn)
	for _, event := range []string{"STOP", "RESUME", "STOP"} {
		p.say(`{"event": "` + event + `"}`)
	}
	<-m.Changed()
	if st, err := m.Status(t.Context()); err != nil || st != vmm.IOError {
		t.Errorf("Status = %q, %v", st, err)
	}
	if err := errors.Join(m.Pause(t.Context()), m.Resume(t.Context())); err != nil {
		t.Errorf("Pause, Resume = %v", err)
	}
	if got := p.called(); !strings.Contains(got, "stop cont") {
		t.Errorf("called: %s", got)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	p.Close()
}

func TestQMPRefuses(t *testing.T) {
	p, conn := newPretendQMP(func(string) string {
		return `"error": {"class": "CommandNotFound", "desc": "The command \u001b is not there"}`
	})
	defer p.Close()
	c, err := newQMP(t.Context(), conn, func(qmpMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.call(t.Context(), "nonsense", nil)
	var qe *qmpError
	if !errors.As(err, &qe) || qe.Class != "CommandNotFound" || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("call = %v", err)
	}
}

// An answer that does not come ends the call, not the connection; one that
// comes late is not taken for another's.
func TestQMPSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := true
		p, conn := newPretendQMP(func(string) string {
			if silent {
				silent = false
				return ""
			}
			return status("running")
		})
		defer p.Close()
		c, err := newQMP(t.Context(), conn, func(qmpMessage) {})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.call(t.Context(), "query-status", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call = %v, want that its time is up", err)
		}
		p.say(`{"id": 2, "return": {"status": "too late"}}`)
		p.say(`{"id": 99, "return": {}}`)
		p.say(`{"return": {}}`)
		var r struct{ Status string }
		if err := c.call(t.Context(), "query-status", &r); err != nil || r.Status != "running" {
			t.Errorf("call = %v, status %q", err, r.Status)
		}
	})
}

// A VMM that serves another client sends no greeting.
func TestNoGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		if _, err := newQMP(t.Context(), ours, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("newQMP = %v, want that its time is up", err)
		}
	})
}

func TestWrongGreeting(t *testing.T) {
	for _, line := range []string{"SSH-2.0-OpenSSH\n", "{}\n", `{"return": {}}` + "\n", "[]\n", strings.Repeat(" ", maxQMPLine+1) + "\n"} {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_, _ = io.WriteString(theirs, line) // the client closes before the end
		}()
		if c, err := newQMP(t.Context(), ours, nil); err == nil {
			c.Close()
			t.Errorf("newQMP took %.20q for a greeting", line)
		}
	}
}

func TestQMPBroken(t *testing.T) {
	p, conn := newPretendQMP(nil)
	c, err := newQMP(t.Context(), conn, func(qmpMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	p.say("garbage")
	<-c.done
	if err := c.call(t.Context(), "query-status", nil); err == nil || !strings.Contains(err.Error(), "decode") {
		t.Errorf("call = %v, want why the connection ended", err)
	}
	c.Close()
	c.Close()
}

func FuzzQMP(f *testing.F) {
	f.Add([]byte(greeting + "\n"))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\n"))
	f.Add([]byte(`{"id": 1, "error": {"class": "x", "desc": "y"}}` + "\n" + `{"id": 1, "return": {"status": 7}}` + "\n"))
	f.Add([]byte(`{"id": -1}` + "\n\n{"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := bufio.NewReader(strings.NewReader(string(data)))
		m := &machine{changed: make(chan struct{}, 1)}
		c := &qmpClient{event: m.event, waiting: map[uint64]chan<- qmpAnswer{1: make(chan qmpAnswer, 1)}}
		for {
			msg, err := readQMP(r)
			if err != nil {
				return
			}
			c.dispatch(msg)
		}
	})
}
