//go:build failpoints

package dmsnap

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"banger/internal/disk"
)

// creating is set in the process that is to die: the layer to create.
const creating = "DMSNAP_TEST_CREATE"

// TestCreating is no test: it is the process that dies in TestCrashOfCreate.
func TestCreating(t *testing.T) {
	var l disk.Layer
	text := os.Getenv(creating)
	if text == "" {
		return
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(err)
	}
	t.Fatalf("it lives: Create = %v", New(Options{Tag: "0a1b2c"}).Create(t.Context(), l))
}

// createSteps are the points within Create.
var createSteps = []string{"copied", "filled", "recorded"}

func ownOrOver(t *testing.T, template bool) disk.Layer {
	l := overTemplate(t)
	if !template {
		l.Template = ""
	}
	return l
}

// The process is killed after each step of Create: there is no layer then, and
// Create and Delete leave nothing of what it had begun.
func TestCrashOfCreate(t *testing.T) {
	ls := New(Options{Tag: "0a1b2c"})
	for kind, template := range map[string]bool{"of its own": false, "over a template": true} {
		for _, point := range createSteps {
			for _, next := range []string{"create", "delete"} {
				t.Run(kind+", "+point+", then "+next, func(t *testing.T) {
					l := ownOrOver(t, template)
					dieCreating(t, l, point)
					if d, err := ls.Attach(t.Context(), l); err == nil {
						t.Errorf("Attach = %+v", d)
					}
					if next == "delete" {
						if err := ls.Delete(t.Context(), disk.Layer{ID: l.ID, Dir: l.Dir}); err != nil {
							t.Errorf("Delete = %v", err)
						}
						wantFiles(t, l.Dir)
						return
					}
					if err := ls.Create(t.Context(), l); err != nil {
						t.Fatal(err)
					}
					wantFiles(t, l.Dir, cowName, recordName)
					wantWhole(t, ls, l)
				})
			}
		}
	}
}

func dieCreating(t *testing.T, l disk.Layer, point string) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestCreating$")
	c.Env = append(os.Environ(), "BANGER_FAILPOINTS=dmsnap/"+point+"=crash", creating+"="+string(text))
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("it ended with %v: %s", err, out)
	}
}

// wantWhole checks that a layer is there, and holds what its template does.
func wantWhole(t *testing.T, ls *Layers, l disk.Layer) {
	t.Helper()
	p, err := openParts(l)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	want := make([]byte, cowSize(16<<20))
	if l.Template != "" {
		want = slurp(t, l.Template)
	}
	if !bytes.Equal(slurp(t, ls.Path(l))[chunkSize:], want[chunkSize:]) {
		t.Error("the layer holds something else than it should")
	}
}

// An error at each step of Create leaves nothing.
func TestCreateFailsAtEachStep(t *testing.T) {
	for kind, template := range map[string]bool{"of its own": false, "over a template": true} {
		for _, point := range createSteps {
			t.Run(kind+", "+point, func(t *testing.T) {
				ls, l := New(Options{Tag: "0a1b2c"}), ownOrOver(t, template)
				t.Setenv("BANGER_FAILPOINTS", "dmsnap/"+point+"=error")
				if err := ls.Create(t.Context(), l); err == nil {
					t.Error("Create succeeded")
				}
				wantFiles(t, l.Dir)
			})
		}
	}
}
