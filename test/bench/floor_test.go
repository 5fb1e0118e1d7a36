//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

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
	b.banger("vm", "create", "--from", "boot", "--network", "none", "model") // the floor has no tap
	m := b.show("model")
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
	f.token = tokenIn(b.t, initrd)
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

// tokenIn is what greets the agent of the machine that has the initramfs.
func tokenIn(t *testing.T, initrd []byte) string {
	found := regexp.MustCompile(`"token":"([0-9a-f]{32})"`).FindAllSubmatch(initrd, -1)
	if len(found) == 0 {
		t.Fatal("the initramfs holds no token")
	}
	return string(found[len(found)-1][1])
}

// once starts the guest, runs true in it and kills it. Making its disks is not
// in the time.
func (f *floor) once() time.Duration {
	root, work := f.dir+"/root.qcow2", f.dir+"/work.ext4"
	run(f.t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", f.image, "-F", "raw", root, "16G")
	_ = os.Remove(work)
	run(f.t, "truncate", "-s", "8G", work)
	run(f.t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", work)
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	c := exec.CommandContext(ctx, "./bare-qemu")
	c.Env = f.env
	check(f.t, c.Start())
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: f.dir + "/agent.sock", Token: f.token})
	check(f.t, err)
	runOnce(f.t, ctx, a, "true")
	check(f.t, c.Process.Kill())
	_ = c.Wait()
	took := time.Since(start)
	a.Close()
	return took
}

// runOnce runs a command in the guest and returns what it printed.
func runOnce(t *testing.T, ctx context.Context, a guest.Agent, argv ...string) string {
	st := a.Exec(ctx)
	check(t, st.Send(&wire.ExecRequest{Msg: &wire.ExecRequest_Start{Start: &wire.ExecStart{Argv: argv}}}))
	var out []byte
	for {
		r, err := st.Receive()
		check(t, err)
		out = append(out, r.GetStdout()...)
		if e := r.GetExit(); e != nil {
			if e.Code != 0 {
				t.Fatalf("%q ended with %d %s", argv, e.Code, e.Error)
			}
			return string(out)
		}
	}
}
