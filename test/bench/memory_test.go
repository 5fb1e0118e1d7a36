//go:build bench

package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMemory prints what an idle machine takes, alone.
func TestMemory(t *testing.T) { idleMemory(t) }

// idleMemory tells how much memory a machine takes that does nothing, restored and
// booted.
func idleMemory(t *testing.T) {
	b := newBench(t, `image = "debian-bookworm"`, `memory = "512M"`, `pool = 0`)
	b.makeTemplate("nat")
	restored, booted := b.idleVMM("template"), b.idleVMM("boot")
	fmt.Printf("\nThe VMM of an idle debian-bookworm machine of 512 MiB has %d MB private, %d of them written, where that was restored; where it was booted, %d MB, %d of them written.\n",
		restored.all()>>20, restored.dirty>>20, booted.all()>>20, booted.dirty>>20)
}

// private is memory that a process shares with no other, in bytes.
type private struct{ clean, dirty int64 }

func (p private) all() int64 { return p.clean + p.dirty }

// idleVMM is what the VMM of a machine has in memory that nobody has used in the
// ten seconds since it was made.
func (b *bench) idleVMM(from string) private {
	b.banger("vm", "create", "--from", from, "idle")
	defer b.banger("vm", "delete", "idle")
	check(b.t, wait(b.t.Context(), 10*time.Second))
	return privateOf(b.t, b.show("idle").Handles.PID)
}

// privateOf reads what a process has to itself (proc_pid_smaps(5)).
func privateOf(t *testing.T, pid int) (p private) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	check(t, err)
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "Private_Clean: %d kB", &kb); n == 1 {
			p.clean = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "Private_Dirty: %d kB", &kb); n == 1 {
			p.dirty = kb << 10
		}
	}
	if p.dirty == 0 {
		t.Fatalf("smaps_rollup of %d tells of no private memory:\n%s", pid, text)
	}
	return p
}
