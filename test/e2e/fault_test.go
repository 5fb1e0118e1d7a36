//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var startSteps = []string{"disk", "network", "boot", "vmm", "guest"}

// stepTime is how long a guest that boots in software may take.
const stepTime = 60 * time.Second

// Every step of a start fails once, before and after its effect: nothing is
// left running, the record tells why, and the next start works.
func TestStartFailsAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	for _, step := range startSteps {
		for _, when := range []string{"before", "after"} {
			point := "start/" + step + "/" + when
			b.must("daemon", "stop")
			b.failpoints = point + "=error"
			b.wants(1, "", "failpoint "+point, "vm", "start", "web")
			b.failpoints = ""
			if s := b.show("web"); s["state"] != "stopped" || !strings.Contains(s["last_error"].(string), point) {
				t.Errorf("%s: state %v, last error %v", point, s["state"], s["last_error"])
			}
			b.noVMM(point)
		}
	}
	b.must("daemon", "stop")
	b.must("vm", "start", "web")
	b.wants(0, "works\n", "", "vm", "exec", "web", "--", "echo", "works")
}

// The daemon dies at every step of a start: the next one brings record and
// host together, and the machine can be used.
func TestDaemonDiesAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	for _, step := range startSteps {
		for _, when := range []string{"before", "after"} {
			point := "start/" + step + "/" + when
			b.must("daemon", "stop")
			b.failpoints = point + "=crash"
			b.wants(1, "", "", "vm", "start", "web")
			b.failpoints = ""
			// A guest that was booting is waited for; the others are taken down.
			wantUp := point == "start/vmm/after" || step == "guest"
			b.eventually("record after "+point, stepTime, func() bool {
				state := b.show("web")["state"]
				return wantUp && state == "running" || !wantUp && state == "stopped"
			})
			if wantUp {
				b.wants(0, "works\n", "", "vm", "exec", "web", "--", "echo", "works")
				b.must("vm", "kill", "web")
			}
			b.noVMM(point)
		}
	}
}

// noVMM checks that no VMM of the bed runs, and that nothing of one is left.
func (b *bed) noVMM(after string) {
	b.t.Helper()
	daemon := b.daemonPID()
	for _, pid := range b.processes() {
		if pid != daemon {
			b.t.Errorf("%s: process %d is left", after, pid)
		}
	}
	if left := slices.Concat(b.networkLeft(), b.blockInventory(), b.cgroupInventory()); len(left) > 0 {
		b.t.Errorf("%s: left %v", after, left)
	}
}
