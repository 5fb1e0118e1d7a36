//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/test/netns"
)

// Where somebody has the port for names, the next one is used, and that is
// said.
func TestPortForNamesIsTaken(t *testing.T) {
	b := newBed(t)
	serveHTTP(t, b.host, "127.0.0.1:42069")
	b.must("vm", "create", "web")
	b.wants(0, "42069 is taken", "", "daemon", "status")
	b.wants(0, "127.0.0.1:42070", "", "daemon", "status")
	ip := fmt.Sprint(b.show("web")["guest_ip"])
	if got := b.host.Output(t, "dig", "+short", "-p", "42070", "@127.0.0.1", "web.vm"); strings.TrimSpace(got) != ip {
		t.Errorf("web.vm is %q, want %s", got, ip)
	}
}

// Another firewall that drops what is forwarded is named with the line that lets
// machines through, and the line works.
func TestForeignFirewall(t *testing.T) {
	b := newBed(t)
	serveHTTP(t, b.internet, netns.Outside+":80")
	b.host.Output(t, "nft", "add table ip strict; add chain ip strict middle { type filter hook forward priority 0; policy drop; }")
	b.host.Output(t, "sh", "-c", "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables")
	t.Cleanup(func() { b.host.Output(t, "nft", "delete", "table", "ip", "strict") })
	b.must("vm", "create", "web")
	b.guestCannot("web", "timeout 3 wget -qO- http://"+netns.Outside+"/")
	status := b.must("daemon", "status")
	_, line, ok := strings.Cut(lineWith(status, "table ip strict"), "let them through with: ")
	if !ok {
		t.Fatalf("daemon status:\n%s", status)
	}
	b.host.Output(t, "sh", "-c", strings.TrimSpace(line))
	b.guestCan("web", "timeout 5 wget -qO- http://"+netns.Outside+"/", "you are "+netns.HostAddr)
	if status := b.must("daemon", "status"); strings.Contains(status, "strict") {
		t.Errorf("after the line was pasted:\n%s", status)
	}
}

// A guest that writes to its console without end costs the host no more than
// the log may hold.
func TestGuestFloodsItsConsole(t *testing.T) {
	b := newBed(t, `console_log_max = "64K"`)
	b.must("vm", "create", "web")
	b.must("vm", "exec", "web", "--", "sh", "-c", "timeout 12 yes flooding > /dev/ttyS0; true")
	log := fmt.Sprint(b.show("web")["log_path"])
	b.eventually("the log is within its limit", 15*time.Second, func() bool {
		fi, err := os.Stat(log)
		return err == nil && fi.Size() <= 64<<10
	})
	b.wants(0, "flooding", "", "vm", "logs", "web")
	b.wants(0, "here\n", "", "vm", "exec", "web", "--", "echo", "here")
}

// A guest that takes its agent's place and writes what it likes to the port is
// cut off; other machines do not notice, and it can be deleted.
func TestGuestFloodsTheAgentsPort(t *testing.T) {
	b := newBed(t, `memory = "96M"`)
	b.must("vm", "create", "rogue")
	b.must("vm", "create", "other")
	port := `for d in /sys/class/virtio-ports/*; do [ "$(cat $d/name)" = banger.agent ] && echo /dev/${d##*/}; done`
	// It stops the agent, whose PID 1 would start it again, and keeps the port.
	// Neither loop may say a word: their output has gone with the agent.
	b.run("--timeout", "10s", "vm", "exec", "rogue", "--", "sh", "-c",
		"p=$("+port+"); exec >/dev/null 2>&1; setsid sh -c \"while :; do cat /dev/zero > $p; done\" & while :; do killall -9 banger-agent; done")
	start := time.Now()
	r := b.run("--timeout", "60s", "vm", "exec", "rogue", "--", "true")
	if took := time.Since(start); took > 40*time.Second || r.code != 125 && r.code != 0 {
		t.Errorf("exit %d after %s: %s", r.code, took, r.stderr)
	}
	t.Logf("exit %d after %s: %s", r.code, time.Since(start), r.stderr)
	b.wants(0, "here\n", "", "vm", "exec", "other", "--", "echo", "here")
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(b.daemonPID()), "status"))
	must(t, err)
	var kb int
	if _, err := fmt.Sscanf(lineWith(string(status), "VmRSS:"), "VmRSS: %d kB", &kb); err != nil || kb > 100<<10 {
		t.Errorf("the daemon has %d kB resident, %v", kb, err)
	}
	b.must("vm", "delete", "rogue")
}

// A daemon whose socket somebody removed can be reached again.
func TestSocketRemoved(t *testing.T) {
	b := newBed(t)
	b.must("daemon", "start")
	pid := b.daemonPID()
	must(t, os.RemoveAll(filepath.Dir(b.paths.Socket())))
	b.eventually("the socket is back", 10*time.Second, func() bool {
		_, err := os.Lstat(b.paths.Socket())
		return err == nil
	})
	b.must("vm", "list")
	if now := b.daemonPID(); now != pid {
		t.Errorf("daemon %d, was %d", now, pid)
	}
}

// An agent that stands still does not look like a hang: who waits for it is
// told, others are refused, and what waited goes on when it answers again.
func TestAgentStandsStill(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	c := b.cmd("vm", "exec", "web", "--", "sh", "-c",
		"setsid sh -c 'killall -STOP banger-agent; sleep 14; killall -CONT banger-agent' >/dev/null 2>&1 & sleep 16; echo done")
	errs, err := c.StderrPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	lines := bufio.NewReader(errs)
	for _, want := range []string{"the agent of machine \"web\" does not answer", "answers again"} {
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("told %q, %v; want %q", line, err, want)
		}
		if strings.Contains(want, "not") {
			start := time.Now()
			b.wants(125, "", "vm restart web\n", "vm", "exec", "web", "--", "true")
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("refused after %s", took)
			}
		}
	}
	text, err := io.ReadAll(out)
	if err = errors.Join(err, c.Wait()); err != nil || string(text) != "done\n" {
		t.Errorf("the command wrote %q, %v", text, err)
	}
}

// An agent that is gone and says nothing is given up in the end, and so is the
// command that waits for it; a restart mends the machine.
func TestAgentGone(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	start := time.Now()
	b.wants(125, "", "the command may have run", "vm", "exec", "web", "--", "sh", "-c",
		"exec >/dev/null 2>&1; setsid sh -c 'while :; do killall -9 banger-agent; done' & sleep 1000")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("told after %s", took)
	}
	b.must("vm", "restart", "web")
	b.wants(0, "here\n", "", "vm", "exec", "web", "--", "echo", "here")
}

// A VMM that stands still does not look like a hang: those who wait for its
// guest are told, others are refused, and it can be killed.
func TestVMMStandsStill(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	c := b.cmd("vm", "exec", "web", "--", "sleep", "1000")
	errs, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	cp := b.cmd("-q", "vm", "cp", "-", "web:file")
	in, err := cp.StdinPipe() // whose end does not come
	must(t, err)
	defer in.Close()
	cpErrs, err := cp.StderrPipe()
	must(t, err)
	must(t, cp.Start())
	b.eventually("the copy has begun", 10*time.Second, func() bool {
		return b.run("vm", "exec", "web", "--", "sh", "-c", "ls -a | grep -q part").code == 0
	})
	must(t, syscall.Kill(b.vmmPID("web"), syscall.SIGSTOP))
	for who, r := range map[string]io.Reader{"exec": errs, "cp": cpErrs} {
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil || !strings.Contains(line, "does not answer") {
			t.Errorf("%s was told %q, %v", who, line, err)
		}
	}
	start := time.Now()
	b.wants(125, "", "hint: ", "vm", "exec", "web", "--", "true")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("refused after %s", took)
	}
	b.must("vm", "kill", "web")
	_, _ = c.Wait(), cp.Wait()
}
