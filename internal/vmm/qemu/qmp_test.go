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
	"time"

	"banger/internal/vmm"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// pretendQMP is the other end of a QMP connection.
type pretendQMP struct {
	net.Conn
	answer func(command string) string // what stands beside "id"; empty: nothing is sent

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
			Execute string
			ID      uint64
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return
		}
		p.mu.Lock()
		p.calls = append(p.calls, c.Execute)
		p.mu.Unlock()
		answer := `"return": {}`
		if c.Execute != "qmp_capabilities" && p.answer != nil {
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

// A machine that stands on a full disk goes on by itself, also if an earlier
// daemon saw it stop.
func TestMachineResumes(t *testing.T) {
	for _, attached := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			now := "running"
			set := func(s string) {
				mu.Lock()
				defer mu.Unlock()
				now = s
			}
			conts := 0
			p, conn := newPretendQMP(func(command string) string {
				mu.Lock()
				defer mu.Unlock()
				if command == "cont" {
					if conts++; conts == 2 { // room since
						now = "running"
					} else {
						return `"error": {"class": "GenericError", "desc": "no"}`
					}
				}
				return status(now)
			})
			if attached {
				set("io-error")
			}
			m := openMachine(t, conn)
			if !attached {
				set("io-error")
				p.say(`{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "nospace": true}}`)
			}
			time.Sleep(2*resumeEvery + time.Second) // in the bubble's time
			if st, err := m.Status(t.Context()); err != nil || st != vmm.Running {
				t.Errorf("Status = %q, %v; called: %s", st, err, p.called())
			}
			// Paused by somebody, it is left alone.
			set("paused")
			p.say(`{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "nospace": true}}`)
			time.Sleep(2 * resumeEvery)
			if got := strings.Count(p.called(), "cont"); got != 2 {
				t.Errorf("cont was called %d times, want 2", got)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			p.Close()
		})
	}
}

// A host that is too busy for QEMU to answer in time is no reason to leave a
// machine standing for ever.
func TestMachineResumesAfterSilence(t *testing.T) {
	for name, bad := range map[string]string{
		"silence": "",
		"refusal": `"error": {"class": "GenericError", "desc": "not now"}`,
		"garbage": `"return": []`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked, now := 0, "io-error" // of the server's goroutine alone
				p, conn := newPretendQMP(func(command string) string {
					if command == "cont" {
						now = "running"
						return `"return": {}`
					}
					if asked++; asked == 2 || asked == 3 { // not the first, when it is opened
						return bad
					}
					return status(now)
				})
				defer p.Close()
				m := openMachine(t, conn)
				time.Sleep(3*resumeEvery + 2*qmpTimeout + time.Second) // in the bubble's time
				if st, err := m.Status(t.Context()); err != nil || st != vmm.Running {
					t.Errorf("Status = %q, %v; called: %s", st, err, p.called())
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A VMM that ends while it is asked is not asked again.
func TestMachineEndsWhileDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, ended := 0, make(chan struct{})
		p, conn := newPretendQMP(func(string) string {
			if asked++; asked == 1 {
				return status("io-error")
			}
			close(ended)
			return ""
		})
		m := openMachine(t, conn)
		start := time.Now()
		<-ended
		p.Close()
		<-m.Done()
		if took := time.Since(start); took != resumeEvery {
			t.Errorf("it was done after %v, want %v, when it was asked", took, resumeEvery)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
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
		m := &machine{full: make(chan struct{}, 1)}
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
