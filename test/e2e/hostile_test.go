//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
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
	b.run("--timeout", "10s", "vm", "exec", "rogue", "--", "sh", "-c",
		"p=$("+port+"); setsid sh -c \"while :; do cat /dev/zero > $p; done\" & while :; do killall -9 banger-agent; done")
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

// A VMM that stands still does not look like a hang: those who wait for its
// guest are told, others are refused, and it can be killed.
func TestVMMStandsStill(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	c := b.cmd("vm", "exec", "web", "--", "sleep", "1000")
	errs, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	must(t, syscall.Kill(b.vmmPID("web"), syscall.SIGSTOP))
	line, err := bufio.NewReader(errs).ReadString('\n')
	if err != nil || !strings.Contains(line, "does not answer") {
		t.Errorf("told %q, %v", line, err)
	}
	start := time.Now()
	b.wants(125, "", "hint: ", "vm", "exec", "web", "--", "true")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("refused after %s", took)
	}
	b.must("vm", "kill", "web")
	_ = c.Wait()
}
