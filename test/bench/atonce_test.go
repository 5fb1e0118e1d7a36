//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/config"
	"banger/test/netns"
)

// TestAtOnce prints the table of many machines at once, alone.
func TestAtOnce(t *testing.T) { atOnce(t) }

// atOnce makes, uses and deletes 20 machines at the same time, prints how long each
// took, and looks whether anything of them is left.
func atOnce(t *testing.T) {
	b := newBench(t, `image = "debian-bookworm"`, `memory = "256M"`, `pool = 1`)
	b.fillPool("nat")
	b.awaitPool(1)
	r := &row{name: "`vm run -- cat /etc/hostname`, 20 at once"}
	began := time.Now()
	r.took = b.runAtOnce(20)
	all := time.Since(began)
	printTable([]*row{r})
	fmt.Printf("All took %s.\n", all.Round(time.Millisecond))
	for _, v := range b.listAll() {
		if v.Purpose != "pool" {
			t.Errorf("left in the list: %+v", v)
		}
	}
	b.checkTemplates()
	b.banger("daemon", "stop") // with what waits in the pool
	if left := b.inventory(); len(left) > 0 {
		t.Errorf("left on the host: %s", strings.Join(left, "; "))
	}
}

// runAtOnce runs a command in n machines at the same time, and returns how long
// each took. It is an error if one fails, or says that it is another.
func (b *bench) runAtOnce(n int) []time.Duration {
	took, errs := make([]time.Duration, n), make([]error, n)
	outs, said := make([]bytes.Buffer, n), make([]bytes.Buffer, n)
	var wg sync.WaitGroup
	for i := range n {
		c := b.cmd("vm", "run", "--", "cat", "/etc/hostname")
		c.Stdout, c.Stderr = &outs[i], &said[i]
		began := time.Now()
		check(b.t, b.start(c))
		wg.Go(func() {
			errs[i] = c.Wait()
			took[i] = time.Since(began)
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for i := range n {
		name := outs[i].String()
		if errs[i] != nil || strings.Count(name, "\n") != 1 || strings.HasPrefix(name, "pool-") || seen[name] {
			b.t.Errorf("run %d: %v, with output %q and %q", i, errs[i], name, said[i].String())
		}
		seen[name] = true
	}
	return took
}

// checkTemplates fails the test if one was set aside: then machines have booted.
func (b *bench) checkTemplates() {
	b.t.Helper()
	var list struct {
		Templates []struct{ ID, Damaged string }
	}
	b.json(&list, "template", "list")
	for _, tm := range list.Templates {
		if tm.Damaged != "" {
			b.t.Errorf("template %s was set aside: %s", tm.ID, tm.Damaged)
		}
	}
}

// inventory lists what there is on the host of a bench whose daemon was stopped:
// processes, links, cgroups, sockets and machines' directories.
func (b *bench) inventory() []string {
	paths, err := config.NewPaths(b.root)
	check(b.t, err)
	found := b.links()
	cmds, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(b.t, err)
	for _, path := range cmds {
		cmd, _ := os.ReadFile(path) // one that has ended has none
		if bytes.Contains(cmd, []byte(b.root)) || bytes.Contains(cmd, []byte(paths.Run)) {
			found = append(found, fmt.Sprintf("process %q", cmd))
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/banger-" + paths.Tag, paths.Run, paths.VMs() + "/*"} {
		left, err := filepath.Glob(pattern)
		check(b.t, err)
		found = append(found, left...)
	}
	return found
}

// links lists the links that the daemon's namespace did not have in the beginning.
func (b *bench) links() (found []string) {
	var links []struct{ IfName string }
	check(b.t, json.Unmarshal([]byte(b.host.IP(b.t, "-j", "link")), &links))
	for _, l := range links {
		if l.IfName != "lo" && l.IfName != netns.Uplink {
			found = append(found, "link "+l.IfName)
		}
	}
	return found
}
