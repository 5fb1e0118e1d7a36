//go:build bench

package bench

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/disk/dmsnap"
	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/vmm"
)

// bareScript comes along with the test: the lab has no sources.
//
//go:embed bare-firecracker
var bareScript []byte

// TestInLab measures what is real in the lab alone, beside its floors there.
func TestInLab(t *testing.T) {
	if os.Getenv("BANGER_BENCH_PARTS") == "" {
		t.Skip("it is for the lab: make bench-lab")
	}
	n := runs(t)
	rows := measure(n, firecrackerRows(t))
	rows = append(rows, measure(runsOr(t, warmRuns), restoredRows(t))...)
	report(t, append(rows, measure(n, attachRows(t))...))
}

// firecrackerRows are cold runs beside a bare Firecracker, and deletes by the
// end of the VMM.
func firecrackerRows(t *testing.T) []*row {
	b := newBench(t, small...)
	bare := &row{name: "bare Firecracker, cold, to what `echo` prints", once: b.newBareFirecracker().once}
	return []*row{
		bare,
		{name: "`vm run -- echo`, cold, Firecracker and dm-snapshot, to what it prints", floor: bare, goal: atMost(1.15), once: func() time.Duration { return b.firstAnswer("boot") }},
		{name: "`vm delete`, from the VMM's end to the answer", goal: within(50 * time.Millisecond), once: b.deleteAfterEnd},
	}
}

// firstAnswer is how long it takes from a command's start to what it prints in a
// machine of its own, which begins as from says. That the machine is deleted is not
// in the time.
func (b *bench) firstAnswer(from string) time.Duration {
	c := b.cmd("vm", "run", "--from", from, "--", "echo", "hello")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	check(b.t, err)
	start := time.Now()
	check(b.t, b.start(c))
	_, err = io.ReadFull(out, make([]byte, len("hello\n")))
	took := time.Since(start)
	if err := errors.Join(err, c.Wait()); err != nil {
		b.t.Fatalf("banger %q: %v\n%s", c.Args, err, errs.Bytes())
	}
	return took
}

// deleteAfterEnd is how long the delete of a running machine takes from the end
// of its VMM on.
func (b *bench) deleteAfterEnd() time.Duration {
	b.banger("vm", "create", "gone")
	fd, err := unix.PidfdOpen(b.show("gone").Handles.PID, 0)
	check(b.t, err)
	defer unix.Close(fd)
	ended := make(chan time.Time)
	go func() {
		for {
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); n == 1 {
				ended <- time.Now()
				return
			}
		}
	}()
	b.banger("vm", "delete", "gone")
	return time.Since(<-ended)
}

// A bareFirecracker is what a bare Firecracker needs to start the same guest.
type bareFirecracker struct {
	*bench
	dir    string
	layers *dmsnap.Layers
	layer  disk.Layer
	work   string
	vsock  string
	token  string
}

// newBareFirecracker takes its configuration from a machine that banger runs, as
// its Firecracker tells it.
func (b *bench) newBareFirecracker() *bareFirecracker {
	f := &bareFirecracker{bench: b, dir: filepath.Join(b.root, "floor"), layers: dmsnap.New(dmsnap.Options{Tag: "floor"})}
	check(b.t, os.MkdirAll(filepath.Join(f.dir, "run"), 0o700))
	b.banger("vm", "create", "--from", "boot", "model")
	m := b.show("model")
	text := callFirecracker(b.t, m.API, "GET", "/vm/config", "")
	var conf firecrackerConfig
	check(b.t, json.Unmarshal(text, &conf))
	f.work, f.vsock = filepath.Join(f.dir, conf.Drives[1].Path), filepath.Join(f.dir, conf.Vsock.Path)
	var img struct{ Path string }
	b.json(&img, "image", "show", m.Image)
	f.layer = disk.Layer{ID: "floor", Dir: f.dir, Base: img.Path, SizeBytes: 16 << 30}
	initrd, err := os.ReadFile(conf.Boot.Initrd)
	check(b.t, err)
	f.token = tokenIn(b.t, initrd)
	kept := filepath.Join(f.dir, "initrd")
	check(b.t, os.WriteFile(kept, initrd, 0o600))
	check(b.t, os.WriteFile(filepath.Join(f.dir, "bare-firecracker"), bareScript, 0o700))
	// Other paths are relative, and mean files in the floor's directory.
	text = bytes.ReplaceAll(text, []byte(conf.Boot.Initrd), []byte(kept))
	text = bytes.ReplaceAll(text, []byte(conf.NICs[0].Tap), []byte(floorTap))
	b.newFloorTap()
	check(b.t, os.WriteFile(filepath.Join(f.dir, "config.json"), withoutMetrics(b.t, text), 0o600))
	b.banger("vm", "delete", "model")
	return f
}

// A firecrackerConfig is what the benchmarks take of a Firecracker's configuration.
type firecrackerConfig struct {
	Boot struct {
		Initrd string `json:"initrd_path"`
	} `json:"boot-source"`
	Drives []struct {
		Path string `json:"path_on_host"`
	}
	NICs []struct {
		ID  string `json:"iface_id"`
		Tap string `json:"host_dev_name"`
	} `json:"network-interfaces"`
	Vsock struct {
		Path string `json:"uds_path"`
	}
}

const floorTap = "floor0"

// newFloorTap makes it, connected to nothing.
func (b *bench) newFloorTap() {
	b.host.IP(b.t, "tuntap", "add", floorTap, "mode", "tap")
	b.host.IP(b.t, "link", "set", floorTap, "up")
}

// callFirecracker makes one call of a Firecracker's API and returns its answer.
func callFirecracker(t *testing.T, sock, method, path, body string) []byte {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://firecracker"+path, strings.NewReader(body))
	check(t, err)
	resp, err := c.Do(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	return text
}

// withoutMetrics leaves out where metrics and log went.
func withoutMetrics(t *testing.T, config []byte) []byte {
	var fields map[string]json.RawMessage
	check(t, json.Unmarshal(config, &fields))
	for name, value := range fields {
		if name == "metrics" || name == "logger" || string(value) == "null" {
			delete(fields, name)
		}
	}
	text, err := json.Marshal(fields)
	check(t, err)
	return text
}

// once starts the guest, runs echo in it and kills it. Making its disks is not in
// the time, nor is its end.
func (f *bareFirecracker) once() time.Duration {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	check(f.t, f.layers.Create(ctx, f.layer))
	_, err := f.layers.Attach(ctx, f.layer)
	check(f.t, err)
	defer func() { check(f.t, f.layers.Delete(ctx, f.layer)) }()
	_ = os.Remove(f.work)
	run(f.t, "truncate", "-s", "8G", f.work)
	run(f.t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", f.work)
	_ = os.Remove(f.vsock)
	start := time.Now()
	c := exec.CommandContext(ctx, filepath.Join(f.dir, "bare-firecracker"))
	c.Env = append(os.Environ(), "DIR="+f.dir)
	check(f.t, f.start(c))
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "vsock-unix", Path: f.vsock, Port: vmm.AgentPort, Token: f.token})
	check(f.t, err)
	if got := runOnce(f.t, ctx, a, "echo", "hello"); got != "hello\n" {
		f.t.Fatalf("echo printed %q", got)
	}
	took := time.Since(start)
	check(f.t, c.Process.Kill())
	_ = c.Wait()
	a.Close()
	return took
}

// attachRows are attaches of a layer beside the same by losetup and dmsetup.
func attachRows(t *testing.T) []*row {
	layers := dmsnap.New(dmsnap.Options{Tag: "bench"})
	layer := func(id string) disk.Layer {
		dir := t.TempDir()
		base := filepath.Join(dir, "base")
		check(t, os.WriteFile(base, bytes.Repeat([]byte("banger!\n"), 8<<20), 0o644))
		l := disk.Layer{ID: id, Dir: dir, Base: base, SizeBytes: 64 << 20}
		check(t, layers.Create(t.Context(), l))
		t.Cleanup(func() { check(t, layers.Delete(context.Background(), l)) })
		return l
	}
	ours, theirs := layer("ours"), layer("theirs")
	tools := &row{name: "a layer attached by losetup and dmsetup", once: func() time.Duration {
		start := time.Now()
		base := run(t, "losetup", "--find", "--show", "--read-only", theirs.Base)
		cow := run(t, "losetup", "--find", "--show", layers.Path(theirs))
		run(t, "dmsetup", "create", "by-hand", "--noudevsync", "--table", fmt.Sprintf("0 %d snapshot %s %s P 8", theirs.SizeBytes/512, base, cow))
		run(t, "dmsetup", "mknodes", "by-hand") // as udev would, which is not there
		took := time.Since(start)
		run(t, "dmsetup", "remove", "--noudevsync", "by-hand")
		run(t, "losetup", "-d", base, cow)
		return took
	}}
	return []*row{tools, {name: "a layer attached by `disk/dmsnap`", floor: tools, goal: atMost(0.25), once: func() time.Duration {
		start := time.Now()
		_, err := layers.Attach(t.Context(), ours)
		check(t, err)
		took := time.Since(start)
		check(t, layers.Detach(t.Context(), ours))
		return took
	}}}
}

// run runs a program and returns what it printed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}
