//go:build lab && failpoints

package dmsnap

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"banger/internal/disk"
)

// crashing is set in the process that is to die: what to do, and to which layer.
const crashing = "DMSNAP_TEST_CRASH"

// TestCrashing is no test: it is the process that dies in TestCrash.
func TestCrashing(t *testing.T) {
	f := strings.Split(os.Getenv(crashing), "|")
	if len(f) != 5 {
		return
	}
	ls, l := testLayers(), disk.Layer{ID: "a1", Dir: f[1], Base: f[2], Template: f[4], SizeBytes: 2 << 20, UID: 1000}
	switch f[0] {
	case "attach":
		attach(t, ls, l)
	case "detach":
		detach(t, ls, l)
	}
	fmt.Println("it lives:", f[3])
}

// The process is killed after each step. Then Detach and Delete find all that
// it left, Attach goes on from there, and what was written is there.
func TestCrash(t *testing.T) {
	for _, tt := range []struct{ op, point string }{
		{"attach", "base"}, {"attach", "cow"}, {"attach", "origin"}, {"attach", "snapshot"}, {"attach", "node"},
		{"detach", "nodes-gone"}, {"detach", "devices-gone"},
	} {
		for _, next := range []string{"detach", "delete", "attach"} {
			for kind, template := range map[string]bool{"": false, " over a template": true} {
				t.Run(tt.point+kind+", then "+next, func(t *testing.T) {
					wantNothingLeft(t)
					crash(t, tt.op, tt.point, next, template)
				})
			}
		}
	}
}

func crash(t *testing.T, op, point, next string, template bool) {
	before := inventory(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 2<<20)
	l.BaseID = ""
	want := append(pattern(1, 1<<20), make([]byte, 1<<20)...)
	if template {
		putOnTemplate(t, &l, 16384)
		copy(want, pattern(7, 16384))
	}
	write(t, attach(t, ls, l).Path, pattern(2, 8192), 0)
	if op == "attach" {
		detach(t, ls, l)
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestCrashing$")
	c.Env = append(os.Environ(), "BANGER_FAILPOINTS=dmsnap/"+point+"=crash",
		crashing+"="+strings.Join([]string{op, l.Dir, l.Base, point, l.Template}, "|"))
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("it ended with %v: %s", err, out)
	}
	switch next {
	case "detach":
		detach(t, ls, l)
	case "delete":
		deleteLayer(t, l)
	}
	if next != "attach" {
		if after := inventory(t); after != before {
			t.Errorf("the host had\n%s\nand has\n%s", before, after)
		}
	}
	if next != "delete" {
		copy(want, pattern(2, 8192))
	}
	wantContent(t, attach(t, ls, l).Path, want)
}

// An error at each step leaves what was there before.
func TestErrorAtEachStep(t *testing.T) {
	for _, point := range []string{"base", "cow", "origin", "snapshot", "node"} {
		t.Run(point, func(t *testing.T) {
			ls, l := testLayers(), newLayer(t, "a1", 1<<20, 2<<20)
			must(t, ls.Create(t.Context(), l))
			before := inventory(t) + tool(t, "ls", "-lA", l.Dir)
			t.Setenv("BANGER_FAILPOINTS", "dmsnap/"+point+"=error")
			if d, err := ls.Attach(t.Context(), l); err == nil {
				t.Errorf("Attach = %+v", d)
			}
			if after := inventory(t) + tool(t, "ls", "-lA", l.Dir); after != before {
				t.Errorf("Attach left\n%s\nof\n%s", after, before)
			}
		})
	}
}
