//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallDisk puts the state of the bed's daemons on a file system of its own,
// of the given size in megabytes.
func (b *bed) smallDisk(megabytes int) {
	b.t.Helper()
	must(b.t, os.MkdirAll(b.paths.State, 0o711))
	img := filepath.Join(b.root, "disk.ext4")
	for _, argv := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", megabytes), img},
		{"mkfs.ext4", "-q", "-F", "-m", "0", img},
		{"mount", "-o", "loop", img, b.paths.State},
		{"chmod", "711", b.paths.State},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			b.t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	b.t.Cleanup(func() { // before the bed's own, which looks for what is left
		for _, name := range strings.Fields(b.must("vm", "list", "--names")) {
			b.run("vm", "delete", name)
		}
		b.run("daemon", "stop")
		if out, err := exec.Command("umount", b.paths.State).CombinedOutput(); err != nil {
			b.t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// Guests fill the host's disk to the brim: they are paused, that is said, and
// with room again they go on and nothing is lost.
func TestGuestFillsTheHostsDisk(t *testing.T) {
	b := newBed(t, `disk = "500M"`)
	b.smallDisk(700)
	b.must("vm", "create", "idle")
	b.must("vm", "create", "writer")
	// Where guests are slow, nothing is as slow as random bytes and their sums.
	b.must("vm", "exec", "writer", "--", "sh", "-c", "head -c 25000000 /dev/urandom > before; sha256sum before > sums; sync")
	times := func(n string) string { return "for i in $(seq " + n + "); do cat before; done" }
	// More than the disk has. The command itself does not end until there is
	// room, and says why.
	ballast := filepath.Join(b.paths.State, "somebody-elses")
	must(t, exec.Command("fallocate", "-l", "400M", ballast).Run())
	c := b.cmd("vm", "exec", "writer", "--", "sh", "-c", times("12")+" > big; sync; echo written")
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	must(t, c.Start())
	b.eventually("the writer is paused, and that is said", 90*time.Second, func() bool {
		s := b.show("writer")
		return s["state"] == "paused" && strings.Contains(fmt.Sprint(s["state_reason"]), "disk is full")
	})
	if got := b.must("vm", "list"); !strings.Contains(got, "paused") || !strings.Contains(got, "disk is full") {
		t.Errorf("vm list:\n%s", got)
	}
	start := time.Now()
	b.wants(125, "", "is paused: the host's disk is full", "vm", "exec", "writer", "--", "true")
	b.wants(125, "", "is paused: the host's disk is full", "vm", "ssh", "writer", "--", "true")
	b.wants(4, "", "has not written", "vm", "stop", "writer")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("refusing took %s", took)
	}
	// The daemon may die meanwhile: it is still known.
	b.killDaemon()
	if s := b.show("writer")["state"]; s != "paused" {
		t.Errorf("after the daemon died it is %s", s)
	}
	_ = c.Wait()
	if text := errs.String(); !strings.Contains(text, "machine writer is paused") {
		t.Errorf("the command said %q", text)
	}
	must(t, os.Remove(ballast))
	b.eventually("all go on", 60*time.Second, func() bool {
		return b.show("writer")["state"] == "running" && b.show("idle")["state"] == "running"
	})
	b.wants(0, "before: OK", "", "vm", "exec", "writer", "--", "sha256sum", "-c", "sums")
	b.wants(0, "written", "", "vm", "exec", "writer", "--", "sh", "-c", times("4")+" > big; sync; echo written")
	b.must("vm", "restart", "writer")
	b.wants(0, "before: OK", "", "vm", "exec", "writer", "--", "sha256sum", "-c", "sums")
	b.wants(0, "same", "", "vm", "exec", "writer", "--", "sh", "-c", times("4")+" | cmp - big && echo same")
	b.wants(0, "idle", "", "vm", "exec", "idle", "--", "hostname")
}
