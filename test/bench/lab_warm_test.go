//go:build bench

package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/disk/dmsnap"
	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
	"banger/internal/vmm"
)

// restoredRows are machines that go on from a template beside a bare Firecracker
// that does.
func restoredRows(t *testing.T) []*row {
	b := newBench(t, `image = "busybox"`, `memory = "256M"`, `pool = 0`)
	f := b.newWarmFirecracker()
	bare := &row{name: "bare Firecracker, `snapshot/load` to the agent's first answer", once: f.once}
	own := &row{name: "the same, identified, to what `echo` prints", once: func() time.Duration { return f.toEcho }} // measured with bare
	return []*row{
		bare, own,
		{name: "`vm run -- echo`, restored, Firecracker and dm-snapshot, to what it prints", floor: bare, goal: atMost(1.25), once: func() time.Duration { return b.firstAnswer("template") }},
	}
}

// A warmFirecracker is what a bare Firecracker needs to go on from a template.
type warmFirecracker struct {
	*bench
	dir    string
	layers *dmsnap.Layers
	layer  disk.Layer
	disk   string // the template's work disk
	work   string
	vsock  string
	token  string
	load   string // the body of snapshot/load
	bundle []byte // the least that makes its agent serve anybody
	toEcho time.Duration
}

// newWarmFirecracker has a template made and takes from a machine of it where its
// files are, as its Firecracker tells it.
func (b *bench) newWarmFirecracker() *warmFirecracker {
	f := &warmFirecracker{bench: b, dir: filepath.Join(b.root, "floor"), layers: dmsnap.New(dmsnap.Options{Tag: "floor"})}
	check(b.t, os.MkdirAll(filepath.Join(f.dir, "run"), 0o700))
	b.banger("vm", "create", "--from", "boot", "booted")
	initrd, err := os.ReadFile(filepath.Join(b.show("booted").Dir, "initrd"))
	check(b.t, err)
	f.bundle = leastBundle(b.t, initrd)
	b.banger("vm", "delete", "booted")
	b.makeTemplate("nat")
	b.banger("vm", "create", "--from", "template", "model")
	m := b.show("model")
	var conf firecrackerConfig
	check(b.t, json.Unmarshal(callFirecracker(b.t, m.API, "GET", "/vm/config", ""), &conf))
	var tmpl frozen
	b.json(&tmpl, "template", "show", m.Template)
	var img struct{ Path string }
	b.json(&img, "image", "show", m.Image)
	f.layer = disk.Layer{ID: "floor", Dir: f.dir, Base: img.Path, Template: tmpl.Root, SizeBytes: 16 << 30}
	f.disk, f.work, f.vsock = tmpl.Work, filepath.Join(f.dir, conf.Drives[1].Path), filepath.Join(f.dir, conf.Vsock.Path)
	f.token = tokenOf(b.t, tmpl.Dir)
	b.newFloorTap()
	load, err := json.Marshal(map[string]any{
		"snapshot_path": tmpl.State, "mem_backend": map[string]string{"backend_type": "File", "backend_path": tmpl.RAM},
		"network_overrides": []map[string]string{{"iface_id": conf.NICs[0].ID, "host_dev_name": floorTap}},
		"resume_vm":         true,
	})
	check(b.t, err)
	f.load = string(load)
	b.banger("vm", "delete", "model")
	return f
}

// once has the guest go on until its agent answers, runs echo in it, notes how long
// that took, and kills it. Making its disks is not in the time, nor is its end.
func (f *warmFirecracker) once() time.Duration {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	check(f.t, f.layers.Create(ctx, f.layer))
	_, err := f.layers.Attach(ctx, f.layer)
	check(f.t, err)
	defer func() { check(f.t, f.layers.Delete(ctx, f.layer)) }()
	run(f.t, "cp", "--sparse=always", f.disk, f.work)
	sock := filepath.Join(f.dir, "api.sock")
	for _, path := range []string{f.vsock, sock} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Fatal(err)
		}
	}
	var said bytes.Buffer
	c := exec.CommandContext(ctx, "firecracker", "--api-sock", sock)
	c.Dir, c.Stdout, c.Stderr = f.dir, &said, &said
	start := time.Now()
	check(f.t, f.start(c))
	defer func() {
		check(f.t, c.Process.Kill())
		_ = c.Wait()
		if f.t.Failed() {
			fmt.Printf("%s", said.Bytes())
		}
	}()
	for unix.Access(sock, unix.R_OK) != nil {
		check(f.t, wait(ctx, time.Millisecond))
	}
	callFirecracker(f.t, sock, "PUT", "/snapshot/load", f.load)
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "vsock-unix", Path: f.vsock, Port: vmm.AgentPort, Token: f.token})
	check(f.t, err)
	defer a.Close()
	took := time.Since(start) // the agent has answered once
	entropy := make([]byte, 64)
	rand.Read(entropy)
	_, err = a.Identify(ctx, connect.NewRequest(&wire.IdentifyRequest{BundleJson: f.bundle, UnixNs: time.Now().UnixNano(), Entropy: entropy}))
	check(f.t, err)
	if got := runOnce(f.t, ctx, a, "echo", "hello"); got != "hello\n" {
		f.t.Fatalf("echo printed %q", got)
	}
	f.toEcho = time.Since(start)
	return took
}
