//go:build bench

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

// runs is how often each row is measured.
func runs(t *testing.T) int {
	n := 20
	if text := os.Getenv("BANGER_BENCH_RUNS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("BANGER_BENCH_RUNS = %q", text)
		}
	}
	return n
}

// TestBench prints the table.
func TestBench(t *testing.T) {
	b := newBench(t)
	f := b.newFloor()
	rows := []struct {
		name string
		once func() time.Duration
		took []time.Duration
	}{
		{name: "bare QEMU, cold, to `true`", once: f.once},
		{name: "`vm run -- true`, cold", once: func() time.Duration { return b.time("vm", "run", "--", "true") }},
		{name: "`vm exec VM -- true`", once: func() time.Duration { return b.time("vm", "exec", "warm", "--", "true") }},
		{name: "`version`", once: func() time.Duration { return b.time("version") }},
	}
	b.banger("vm", "create", "warm")
	for range runs(t) {
		for i := range rows {
			rows[i].took = append(rows[i].took, rows[i].once())
		}
	}
	fmt.Printf("\n| Row | n | p50 ms | p90 ms | max ms | of the floor, p50 |\n| --- | --- | --- | --- | --- | --- |\n")
	floor := quantile(rows[0].took, 0.5)
	for _, r := range rows {
		p50 := quantile(r.took, 0.5)
		fmt.Printf("| %s | %d | %d | %d | %d | %.2f |\n", r.name, len(r.took), p50.Milliseconds(),
			quantile(r.took, 0.9).Milliseconds(), slices.Max(r.took).Milliseconds(), float64(p50)/float64(floor))
	}
	fmt.Println()
	if ratio := float64(quantile(rows[1].took, 0.5)) / float64(floor); ratio > 1.25 {
		t.Errorf("a cold run takes %.2f times the floor; the goal is 1.25", ratio)
	}
}

func quantile(d []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[int(q*float64(len(s)-1)+0.5)]
}

// A bench is a daemon with a root of its own.
type bench struct {
	t    *testing.T
	root string
	bin  string
}

func newBench(t *testing.T) *bench {
	root, err := os.MkdirTemp("/tmp", "banger-bench-")
	check(t, err)
	check(t, os.Chmod(root, 0o711))
	cache, err := filepath.Abs("../../.cache/test")
	check(t, err)
	check(t, os.MkdirAll(cache, 0o755))
	conf := fmt.Sprintf("cache = %q\nimage = \"busybox\"\nmemory = \"256M\"\nvcpus = 1\n", cache)
	check(t, os.WriteFile(filepath.Join(root, "config.toml"), []byte(conf), 0o600))
	bin, err := filepath.Abs("../../bin")
	check(t, err)
	b := &bench{t, root, bin}
	t.Cleanup(func() {
		_ = b.cmd("vm", "delete", "warm").Run()
		check(t, b.cmd("daemon", "stop").Run())
		check(t, os.RemoveAll(root))
	})
	return b
}

func (b *bench) cmd(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(b.bin, "banger"), args...)
	c.Env = append(os.Environ(), "BANGER_ROOT="+b.root)
	return c
}

// banger runs a command and returns its output.
func (b *bench) banger(args ...string) []byte {
	b.t.Helper()
	c := b.cmd(args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		b.t.Fatalf("banger %q: %v\n%s", args, err, errs.Bytes())
	}
	return out
}

func (b *bench) time(args ...string) time.Duration {
	b.t.Helper()
	start := time.Now()
	b.banger(args...)
	return time.Since(start)
}

func (b *bench) json(v any, args ...string) {
	b.t.Helper()
	check(b.t, json.Unmarshal(b.banger(append(args, "--json")...), v))
}

// A floor is what a bare QEMU needs to start the same guest.
type floor struct {
	t     *testing.T
	dir   string
	env   []string
	image string
	token string
}

// newFloor takes initramfs and kernel arguments from a machine that banger
// runs.
func (b *bench) newFloor() *floor {
	f := &floor{t: b.t, dir: filepath.Join(b.root, "floor")}
	check(b.t, os.Mkdir(f.dir, 0o700))
	b.banger("vm", "create", "model")
	var m struct {
		Dir     string `json:"vm_dir"`
		Image   string
		Kernel  string
		Handles struct{ PID int }
	}
	b.json(&m, "vm", "show", "model")
	var img struct{ Path string }
	b.json(&img, "image", "show", m.Image)
	var kern struct {
		VMLinux string `json:"vmlinux_path"`
		Modules string `json:"modules_path"`
	}
	b.json(&kern, "kernel", "show", m.Kernel)
	initrd, err := os.ReadFile(filepath.Join(m.Dir, "initrd"))
	check(b.t, err)
	check(b.t, os.WriteFile(filepath.Join(f.dir, "initrd"), initrd, 0o600))
	found := regexp.MustCompile(`"token":"([0-9a-f]{32})"`).FindAllSubmatch(initrd, -1)
	if len(found) == 0 {
		b.t.Fatal("the initramfs holds no token")
	}
	f.token = string(found[len(found)-1][1])
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Handles.PID))
	check(b.t, err)
	args := strings.Split(string(cmdline), "\x00")
	arg := func(name string) string { return args[slices.Index(args, name)+1] }
	f.image = img.Path
	f.env = append(os.Environ(),
		"DIR="+f.dir, "KERNEL="+kern.VMLinux, "MODULES="+kern.Modules, "INITRD="+f.dir+"/initrd",
		"AGENT_SOCK="+f.dir+"/agent.sock", "VCPUS=1", "MEMORY=256M",
		"APPEND="+arg("-append"), "ACCEL="+arg("-accel"), "CPU="+arg("-cpu"))
	b.banger("vm", "delete", "model")
	return f
}

// once starts the guest, runs true in it and kills it. Making its disks is not
// in the time.
func (f *floor) once() time.Duration {
	root, work := f.dir+"/root.qcow2", f.dir+"/work.ext4"
	f.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", f.image, "-F", "raw", root, "16G")
	_ = os.Remove(work)
	f.run("truncate", "-s", "8G", work)
	f.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", work)
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	c := exec.CommandContext(ctx, "./bare-qemu")
	c.Env = f.env
	check(f.t, c.Start())
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: f.dir + "/agent.sock", Token: f.token})
	check(f.t, err)
	st := a.Exec(ctx)
	check(f.t, st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{Argv: []string{"true"}}}}))
	for {
		r, err := st.Receive()
		check(f.t, err)
		if e := r.GetExit(); e != nil {
			if e.Code != 0 {
				f.t.Fatalf("true ended with %d %s", e.Code, e.Error)
			}
			break
		}
	}
	check(f.t, c.Process.Kill())
	_ = c.Wait()
	took := time.Since(start)
	a.Close()
	return took
}

func (f *floor) run(argv ...string) {
	f.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		f.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
