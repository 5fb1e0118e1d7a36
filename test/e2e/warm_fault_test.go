//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
	"banger/internal/vmm"
)

// templateFiles lists what there is of templates, whole or not.
func (b *bed) templateFiles() (found []string) {
	b.t.Helper()
	for _, glob := range []string{"*/current", ".staging/*"} {
		paths, err := filepath.Glob(filepath.Join(b.paths.Templates(), glob))
		must(b.t, err)
		found = append(found, paths...)
	}
	return found
}

// The daemon dies wherever it can while it makes a template: there is none,
// nothing of one, and the next use of the image makes it.
func TestWarmDaemonDiesFreezing(t *testing.T) {
	b := newBed(t, `templates = true`)
	points := []string{"pause", "freeze", "end", "disks", "publish"}
	seed(t).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	for _, point := range points[:min(len(points), rounds(t, 1))] {
		b.must("daemon", "stop")
		b.failpoints = "freeze/" + point + "=crash"
		b.must("vm", "run", "--", "true")
		b.eventually("the daemon has died at "+b.failpoints, 3*time.Minute, func() bool { return b.daemonPID() == 0 })
		b.failpoints = ""
		if out := b.must("vm", "list", "--names"); out != "" {
			t.Errorf("freeze/%s: the next daemon has %q", point, out)
		}
		b.must("daemon", "stop")
		if left := slices.Concat(b.inventory(), b.templateFiles()); len(left) > 0 {
			t.Errorf("freeze/%s: left %v", point, left)
		}
	}
	// One that ends when it is asked to has its maker go, too.
	b.must("vm", "run", "--", "true")
	b.eventually("a template is being made", time.Minute, func() bool { return b.maker() != "" })
	b.must("daemon", "stop")
	if left := slices.Concat(b.inventory(), b.templateFiles()); len(left) > 0 {
		t.Errorf("after daemon stop: left %v", left)
	}
	x := b.template()
	b.must("vm", "run", "--name", "web", "--", "true")
	b.must("vm", "create", "other")
	b.areRestored(x, "web", "other")
}

// warmDaemonDies has the daemon die wherever it can while it restores a machine:
// nothing of that is left, nobody has used a guest that was not told who it is,
// and the next start works.
func (b *bed) warmDaemonDies(x map[string]any) {
	b.must("vm", "create", "--no-start", "web")
	points := []string{"start/vmm/bound"}
	for _, step := range startSteps {
		points = append(points, "start/"+step+"/before", "start/"+step+"/after")
	}
	seed(b.t).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	few := points[:min(len(points), rounds(b.t, len(points)))]
	for _, point := range append([]string{"start/guest/contact"}, few...) {
		b.must("daemon", "stop")
		b.failpoints = point + "=crash"
		b.wants(1, "", "", "vm", "start", "web")
		b.failpoints = ""
		if point == "start/guest/contact" {
			b.servesNobody(x)
		}
		b.wants(125, "", "not running", "vm", "exec", "web", "--", "true")
		if s := b.show("web"); s["state"] != "stopped" || s["template"] != x["id"] {
			b.t.Errorf("%s: it is %v on %v", point, s["state"], s["template"])
		}
		b.noVMM(point)
	}
	b.must("vm", "start", "web")
	b.must("vm", "create", "other")
	b.areRestored(x, "web", "other")
	b.wants(0, "web\n", "", "vm", "ssh", "web", "--", "hostname")
	b.must("vm", "delete", "web", "other")
}

// servesNobody checks that the agent of the one guest that runs, which was not
// told who it is, takes no command from whoever knows the template's secret, and
// that who knows the machine's does not reach it.
func (b *bed) servesNobody(x map[string]any) {
	b.t.Helper()
	if pids := b.vmmPIDs(); len(pids) != 1 {
		b.t.Fatalf("there are VMMs %v, want one", pids)
	}
	dirs := b.vmDirs()
	manifest, err := os.ReadFile(filepath.Join(x["dir"].(string), "manifest.json"))
	must(b.t, err)
	var kept struct{ Token string }
	must(b.t, json.Unmarshal(manifest, &kept))
	e := guest.Endpoint{Path: b.paths.VM(dirs[0]).AgentSock(), Token: kept.Token, Port: vmm.AgentPort, Kind: string(vmm.Serial)}
	if x["driver"] == "firecracker" {
		e.Kind = string(vmm.VsockUnix)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	a, err := transport.Dialer{}.Dial(ctx, e)
	must(b.t, err)
	defer a.Close()
	st := a.Exec(ctx)
	_ = st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{Argv: []string{"true"}}}}) // the answer tells
	if m, err := st.Receive(); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "no identity") {
		b.t.Errorf("a guest without an identity answers %v, %v", m, err)
	}
}

// warmContactFails has a guest that cannot be told who it is: it is taken down,
// and who asked for a machine gets one that boots, with one line that says so.
func (b *bed) warmContactFails(x map[string]any) {
	b.must("daemon", "stop")
	b.failpoints = "start/guest/contact=error"
	b.bootsAfterAll(x, "failpoint start/guest/contact")
	b.failpoints = ""
	b.prunesDamaged()
}

// bootsAfterAll runs a machine that stands on a template that cannot be used, and
// checks that it boots, that this is said once, and that the template is not used
// again.
func (b *bed) bootsAfterAll(x map[string]any, why string) {
	b.t.Helper()
	for i, name := range []string{"first", "second"} {
		r := b.run("vm", "run", "--name", name, "--", "cat", "/proc/sys/kernel/random/boot_id")
		warning := lineWith(string(r.stderr), "warning: ")
		told := strings.Contains(warning, "so "+name+" boots: ") && strings.Contains(warning, why)
		if n := strings.Count(string(r.stderr), "warning: "); r.code != 0 || n != 1-i || i == 0 && !told {
			b.t.Errorf("%s: exit %d\n%s", name, r.code, r.stderr)
		}
		if s := b.show(name); s["template"] != "" {
			b.t.Errorf("%s stands on template %v", name, s["template"])
		}
		b.wants(0, name+"\n", "", "vm", "exec", name, "--", "hostname")
	}
	b.differ("boot ids of those that boot", b.bootID("first"), b.bootID("second"))
	b.must("vm", "delete", "first", "second")
	if got := b.templates(); len(got) != 1 || got[0]["id"] != x["id"] || !strings.Contains(got[0]["damaged"].(string), why) {
		b.t.Errorf("templates: %v", got)
	}
	b.wants(1, "", why, "template", "verify", x["id"].(string))
}

// prunesDamaged checks that the one template goes with the damaged ones.
func (b *bed) prunesDamaged() {
	b.t.Helper()
	b.must("template", "prune", "-f")
	if left := b.templateFiles(); len(left) > 0 {
		b.t.Errorf("after a prune there is %v", left)
	}
}
