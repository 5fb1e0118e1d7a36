//go:build e2e

package e2e

import (
	"os"
	"testing"
)

// flip changes one byte of a file, as a bad disk does: without anybody noticing.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// A template whose state has another byte than it had is not used: who asked for
// a machine gets one that boots, and is told once. It can be pruned, and is made
// anew.
func TestWarmDamaged(t *testing.T) {
	b := newBed(t, `templates = true`)
	x := b.template()
	flip(t, x["state_path"].(string), 4096)
	b.bootsAfterAll(x, "its content is not what it was")
	b.prunesDamaged()

	// Memory that nobody reads through before it is used: whoever verifies it
	// knows, and machines that stand on the template keep it.
	x = b.template()
	b.must("vm", "create", "web")
	flip(t, x["ram_path"].(string), 64<<20)
	b.wants(1, "", "its content is not what it was", "template", "verify", x["id"].(string))
	b.wants(4, "", `in use by machine "web"`, "template", "delete", x["id"].(string))
	b.must("template", "prune", "-f")
	b.must("vm", "stop", "web")
	b.must("vm", "start", "web") // its disk stands on it
	b.wants(0, "web\n", "", "vm", "exec", "web", "--", "hostname")
	b.must("vm", "delete", "web")
	b.prunesDamaged()
}
