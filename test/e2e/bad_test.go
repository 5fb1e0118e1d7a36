//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNonsenseIsRefused(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "taken")
	for _, tt := range []struct {
		code int
		want string
		args string
	}{
		{2, "no name for a machine", "vm create Web"},
		{2, "no name for a machine", "vm create -- -web"},
		{2, "size", "vm create --memory 0 x"},
		{2, "size", "vm create --memory -1G x"},
		{2, "as much as the host has", "vm create --memory 900T x"},
		{2, "file system", "vm create --disk-size 900T x"},
		{2, "as many as the host has", "vm create --vcpus 4096 x"},
		{3, "debian-bookworm", "vm create --image debian-bookwrom x"},
		{125, "debian-bookworm", "vm run --image debian-bookwrom -- true"},
		{4, "exists already", "vm create taken"},
		{3, "taken", "vm start takne"},
		{2, "", "vm create --no-such-flag x"},
		{4, "taken", "image delete busybox"},
		{4, "taken", "kernel delete debian-cloud"},
	} {
		b.wants(tt.code, "", tt.want, strings.Fields(tt.args)...)
	}
	if dirs := b.vmDirs(); len(dirs) != 1 {
		t.Errorf("machines: %v", dirs)
	}
}

func TestConfigurationWithAnUnknownKey(t *testing.T) {
	b := newBed(t)
	b.configure(`memroy = "1G"`)
	b.wants(2, "", `the nearest known one is "memory"`, "daemon", "start")
	b.configure(fmt.Sprintf("cache = %q", cacheDir), `image = "busybox"`)
}

func TestDatabaseThatIsNone(t *testing.T) {
	b := newBed(t)
	must(t, os.MkdirAll(b.paths.State, 0o711))
	must(t, os.WriteFile(b.paths.Database(), []byte(strings.Repeat("garbage ", 4000)), 0o600))
	b.wants(5, "", b.paths.Database(), "daemon", "start")
	if text, err := os.ReadFile(b.paths.Database()); err != nil || !strings.HasPrefix(string(text), "garbage") {
		t.Errorf("the file was changed: %v", err)
	}
	must(t, os.Remove(b.paths.Database()))
}

// A guest that cannot boot shows its last words.
func TestGuestCannotBoot(t *testing.T) {
	b := newBed(t)
	b.must("kernel", "import", "bare", filepath.Join(cacheDir, "kernels/debian-cloud/current/vmlinux"))
	t.Cleanup(func() { b.run("kernel", "delete", "bare") })
	b.wants(125, "", "banger: cannot boot", "vm", "run", "--kernel", "bare", "--", "true")
	if dirs := b.vmDirs(); len(dirs) != 0 {
		t.Errorf("left: %v", dirs)
	}
}

func TestGuestPanics(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	b.run("vm", "exec", "web", "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
	b.eventually("the panic is told", 15*time.Second, func() bool {
		return strings.Contains(fmt.Sprint(b.show("web")["state_reason"]), "panicked")
	})
	b.must("vm", "start", "web")
}

func TestAgentDoesNotAnswer(t *testing.T) {
	b := newBed(t, `boot_timeout = "200ms"`)
	b.must("vm", "create", "--no-start", "web")
	b.wants(124, "", "did not answer within 200ms", "vm", "start", "web")
	if s := b.show("web"); s["state"] != "stopped" || !strings.Contains(fmt.Sprint(s["last_error"]), "did not answer") {
		t.Errorf("state %v, last error %v", s["state"], s["last_error"])
	}
	b.noVMM("a guest that was too slow")
}

func TestVMMKilledDuringBoot(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	c := b.cmd("vm", "start", "web")
	var errs strings.Builder
	c.Stderr = &errs
	must(t, c.Start())
	var vmms []int
	b.eventually("the VMM runs", 10*time.Second, func() bool {
		vmms = b.vmmPIDs()
		return len(vmms) == 1
	})
	b.kill(vmms[0])
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "web") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	b.must("vm", "start", "web")
}

func TestImageIsDamaged(t *testing.T) {
	b := newBed(t)
	b.outside = true
	b.must("vm", "create", "--no-start", "web") // so that image and kernel are there
	b.must("vm", "delete", "web")
	b.must("daemon", "stop")
	cache := filepath.Join(b.root, "cache")
	must(t, os.MkdirAll(cache+"/images", 0o755))
	for _, dir := range []string{"kernels", "images/busybox"} { // images are sparse
		must(t, exec.Command("cp", "-a", "--sparse=always", filepath.Join(cacheDir, dir), filepath.Join(cache, dir)).Run())
	}
	must(t, exec.Command("chmod", "-R", "a+rX", cache).Run())
	roots, err := filepath.Glob(cache + "/images/busybox/*/root.ext4")
	must(t, err)
	for _, r := range roots {
		if fi, err := os.Lstat(filepath.Dir(r)); err == nil && fi.IsDir() {
			must(t, os.Truncate(r, 100_000))
		}
	}
	b.configure(fmt.Sprintf("cache = %q", cache), `image = "busybox"`, `memory = "192M"`, `disk = "64M"`)
	b.wants(125, "", "banger image build busybox", "vm", "run", "--network", "none", "--", "true")
	b.must("image", "build", "busybox")
	b.wants(0, "works\n", "", "vm", "run", "--network", "none", "--", "echo", "works")
	vmlinux, err := filepath.EvalSymlinks(cache + "/kernels/debian-cloud/current/vmlinux")
	must(t, err)
	must(t, os.Truncate(vmlinux, 1<<20))
	b.wants(125, "", "banger kernel pull debian-cloud", "vm", "run", "--network", "none", "--", "true")
}

func TestFullDisk(t *testing.T) {
	b := newBed(t)
	must(t, os.MkdirAll(b.paths.State, 0o711))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64M,mode=711", "tmpfs", b.paths.State).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { // before the bed's own, which looks for what is left
		b.run("daemon", "stop")
		if out, err := exec.Command("umount", b.paths.State).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	b.wants(5, "", "left, and a machine takes at least", "vm", "create", "web")
	if dirs := b.vmDirs(); len(dirs) != 0 {
		t.Errorf("left: %v", dirs)
	}
}

// Without QEMU, and without root: one line, the code, and a line to paste.
func TestHostLacksSomething(t *testing.T) {
	b := newBed(t)
	b.must("daemon", "start")
	b.must("daemon", "stop")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	must(t, err)
	c := b.cmd("vm", "run", "--", "true")
	script := fmt.Sprintf("mount --bind /dev/null %s && exec \"$0\" \"$@\"", qemu)
	through(c, "unshare", "-m", "sh", "-c", script)
	out, _ := c.CombinedOutput()
	if code := c.ProcessState.ExitCode(); code != 125 || !strings.Contains(string(out), "apt-get install -y qemu-system-x86") {
		t.Errorf("without QEMU: exit %d: %s", code, out)
	}
	b.must("daemon", "stop")

	must(t, os.Chmod(binDir, 0o755))
	c = b.cmd("vm", "run", "--", "true")
	through(c, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
	out, _ = c.CombinedOutput()
	if code := c.ProcessState.ExitCode(); code != 125 || !strings.Contains(string(out), "hint: sudo ") || !strings.Contains(string(out), " daemon start") {
		t.Errorf("without root: exit %d: %s", code, out)
	}
}

// The same recipe on the same archive gives the same files.
func TestImageIsDeterministic(t *testing.T) {
	b := newBed(t)
	b.outside = true
	list := func() []string {
		b.must("image", "build", "busybox")
		root, err := filepath.EvalSymlinks(filepath.Join(cacheDir, "images/busybox/current/root.ext4"))
		must(t, err)
		dir := t.TempDir()
		if out, err := exec.Command("debugfs", "-R", "rdump / "+dir, root).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var files []string
		must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			files = append(files, fmt.Sprint(strings.TrimPrefix(path, dir), fi.Mode(), fi.Size()))
			return err
		}))
		return files
	}
	first, second := list(), list()
	if len(first) < 100 || !slices.Equal(first, second) {
		t.Errorf("two builds differ: %d and %d files", len(first), len(second))
	}
}
