//go:build e2e

package e2e

import (
	"net"
	"testing"
	"time"
)

// pausedWhenIdle waits until a machine is paused that nobody uses.
func (b *bed) pausedWhenIdle(name string) {
	b.t.Helper()
	b.eventually(name+" is paused", 30*time.Second, func() bool {
		got := b.show(name)
		return got["state"] == "paused" && got["state_reason"] == "idle for 1s"
	})
}

// staysUp checks that a machine is not paused for longer than it takes.
func (b *bed) staysUp(name, why string) {
	b.t.Helper()
	began := time.Now()
	b.eventually("three seconds have gone", 30*time.Second, func() bool {
		if got := b.show(name); got["state"] != "running" {
			b.t.Fatalf("%s: after %s it is %v (%v)", why, time.Since(began), got["state"], got["state_reason"])
		}
		return time.Since(began) > 3*time.Second
	})
}

// A machine that nobody uses for a second is paused and takes no time of the
// processor; whoever uses it resumes it, and what uses it keeps it up: a
// command, a session, a connection that carries nothing.
func TestAutoPause(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--auto-pause", "1s", "web")
	addr, _ := b.show("web")["guest_ip"].(string)
	b.pausedWhenIdle("web")
	used, paused := b.cpuTime("web"), time.Now()
	b.eventually("three seconds have gone", 10*time.Second, func() bool { return time.Since(paused) > 3*time.Second })
	if now := b.cpuTime("web"); now > used+10 { // its VMM is asked how it does
		t.Errorf("while it was paused it used the processor for %d ticks", now-used)
	}
	b.wants(0, "here\n", "", "vm", "exec", "web", "--", "sh", "-c", "sleep 3; echo here")
	b.pausedWhenIdle("web")
	b.wants(0, "here\n", "", "vm", "ssh", "web", "--", "sh", "-c", "sleep 3; echo here")
	b.pausedWhenIdle("web")
	if off := b.clockOff("web").Abs(); off > 50*time.Millisecond {
		t.Errorf("the clock is off by %s", off)
	}
	b.pausedWhenIdle("web")

	b.must("vm", "session", "start", "--name", "sleep", "web", "--", "sleep", "1000")
	b.staysUp("web", "a session")
	b.killDaemon()
	b.staysUp("web", "a session, and another daemon")
	b.must("vm", "session", "stop", "web", "sleep")
	b.pausedWhenIdle("web")

	b.must("vm", "exec", "web", "--", "httpd", "-p", "7777")
	var c net.Conn
	must(t, b.host.Do(func() (err error) { c, err = net.Dial("tcp", net.JoinHostPort(addr, "7777")); return err }))
	b.staysUp("web", "a connection")
	must(t, c.Close())
	b.pausedWhenIdle("web")

	b.wants(0, "web changed\n", "", "vm", "set", "--auto-pause", "0", "web")
	b.must("vm", "resume", "web")
	b.staysUp("web", "no auto-pause")
}
