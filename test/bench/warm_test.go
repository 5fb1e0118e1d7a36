//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

// warmRuns is how often what takes little is measured, if nobody says.
const warmRuns = 50

// TestWarm prints the rows of templates and of machines that stand, alone.
func TestWarm(t *testing.T) {
	report(t, measure(runsOr(t, warmRuns), warmRows(t)))
}

// warmRows are machines that go on from a template beside a bare QEMU that does,
// commands in a machine that stands beside those in one that runs, and machines of
// the pool, all as a user has them who says nothing.
func warmRows(t *testing.T) []*row {
	b := newBench(t, `image = "debian-bookworm"`, `pool = 1`)
	// What machines have in common with the floor: no network.
	none := func(args ...string) []string { return append(args, "--network", "none") }
	f := b.newWarmFloor(none)
	b.banger(none("vm", "create", "--from", "template", "warm")...)
	b.fillPool("none")
	b.fillPool("nat")
	bare := &row{name: "bare QEMU, restored, to `sh -c true`", once: func() time.Duration {
		b.awaitPool(2) // the turn's last row leaves one too few, and the host busy
		return f.once()
	}}
	exec := &row{name: "`vm exec VM -- true`, beside restores", once: func() time.Duration { return b.time("vm", "exec", "warm", "--", "true") }}
	rows := []*row{
		bare,
		{name: "`vm run -- sh -c true`, restored, without a network", floor: bare, goal: atMost(1.25), once: func() time.Duration {
			return b.time(append(none("vm", "run", "--from", "template"), "--", "sh", "-c", "true")...)
		}},
		exec,
		{name: "the same in a machine that was paused", floor: exec, goal: moreThanFloor(10 * time.Millisecond), once: func() time.Duration {
			b.banger("vm", "pause", "warm")
			return b.time("vm", "exec", "warm", "--", "true")
		}},
	}
	return append(rows, b.poolRows()...)
}

// A warmFloor is what a bare QEMU needs to go on from the same template.
type warmFloor struct {
	t        *testing.T
	dir      string
	argv     []string
	template frozen
	token    string
	bundle   []byte // the least that makes its agent serve anybody
}

// A frozen is what the benchmarks take of `template show`.
type frozen struct {
	State string `json:"state_path"`
	RAM   string `json:"ram_path"`
	Root  string `json:"root_path"`
	Work  string `json:"work_path"`
	Dir   string
}

// newWarmFloor has a template made and takes from a machine of it the command
// line, with the floor's own files in it.
func (b *bench) newWarmFloor(machine func(...string) []string) *warmFloor {
	f := &warmFloor{t: b.t, dir: filepath.Join(b.root, "floor")}
	check(b.t, os.Mkdir(f.dir, 0o700))
	b.banger(machine("vm", "create", "--from", "boot", "booted")...)
	initrd, err := os.ReadFile(filepath.Join(b.show("booted").Dir, "initrd"))
	check(b.t, err)
	f.bundle = leastBundle(b.t, initrd)
	b.banger("vm", "delete", "booted")
	b.makeTemplate("none")
	b.banger(machine("vm", "create", "--from", "template", "model")...)
	m := b.show("model")
	b.json(&f.template, "template", "show", m.Template)
	f.token = tokenOf(b.t, f.template.Dir)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Handles.PID))
	check(b.t, err)
	text := strings.NewReplacer(
		m.Dir, f.dir, filepath.Dir(m.API), f.dir, "mem-path=/proc/self/fd/3,", "mem-path="+f.template.RAM+",",
	).Replace(strings.TrimSuffix(string(cmdline), "\x00"))
	f.argv = strings.Split(text, "\x00")
	if !strings.Contains(text, f.template.RAM) || strings.Contains(text, "/proc/self/fd/") {
		b.t.Fatalf("the command line has no place for the memory: %q", f.argv)
	}
	b.banger("vm", "delete", "model")
	return f
}

// makeTemplate makes a template of machines with such a network.
func (b *bench) makeTemplate(network string) {
	b.t.Helper()
	b.banger("bench", "-n", "1", "--rows", "restored", "--network", network)
}

// leastBundle is what a booted machine was told, for another machine and without
// anything that a guest can do without: no names or keys.
func leastBundle(t *testing.T, initrd []byte) []byte {
	from := bytes.LastIndex(initrd, []byte(`{"hostname":`))
	if from < 0 {
		t.Fatal("the initramfs holds no bundle")
	}
	var raw json.RawMessage
	check(t, json.NewDecoder(bytes.NewReader(initrd[from:])).Decode(&raw))
	w, err := wire.DecodeBundle(raw)
	check(t, err)
	w.Hostname, w.MachineID, w.Token = "floor", digits(), digits()
	w.Hosts, w.Resolvers, w.AuthorizedKeys, w.SSHHostKeys = nil, nil, nil, nil
	data, err := w.Encode()
	check(t, err)
	return data
}

func digits() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// tokenOf is what greets the agent of a template.
func tokenOf(t *testing.T, dir string) string {
	records, err := filepath.Glob(filepath.Join(dir, "*.json"))
	check(t, err)
	for _, path := range records {
		text, err := os.ReadFile(path)
		check(t, err)
		var r struct{ Token string }
		if json.Unmarshal(text, &r) == nil && r.Token != "" {
			return r.Token
		}
	}
	t.Fatalf("there is no record in %s", dir)
	return ""
}

// once has the guest go on, runs a command in it and kills it. Making its disks is
// not in the time.
func (f *warmFloor) once() time.Duration {
	root, work := f.dir+"/root.qcow2", f.dir+"/work.ext4"
	run(f.t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", f.template.Root, "-F", "qcow2", root, "16G")
	run(f.t, "cp", "--sparse=always", f.template.Work, work)
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	c := exec.CommandContext(ctx, f.argv[0], f.argv[1:]...)
	var said bytes.Buffer
	c.Dir, c.Stderr = f.dir, &said
	check(f.t, c.Start())
	f.t.Cleanup(func() { _ = c.Process.Kill() }) // if it fails before
	f.restore(ctx, &said)
	a, err := transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: f.dir + "/agent.sock", Token: f.token})
	check(f.t, err)
	entropy := make([]byte, 64)
	rand.Read(entropy)
	_, err = a.Identify(ctx, connect.NewRequest(&wire.IdentifyRequest{BundleJson: f.bundle, UnixNs: time.Now().UnixNano(), Entropy: entropy}))
	check(f.t, err)
	runOnce(f.t, ctx, a, "sh", "-c", "true")
	check(f.t, c.Process.Kill())
	_ = c.Wait()
	took := time.Since(start)
	a.Close()
	return took
}

// restore tells QEMU by QMP to go on from the template.
func (f *warmFloor) restore(ctx context.Context, said *bytes.Buffer) {
	conn := f.dialQMP(ctx, said)
	defer conn.Close()
	in := bufio.NewReader(conn)
	state, err := os.Open(f.template.State)
	check(f.t, err)
	defer state.Close()
	f.call(conn, in, nil, `{"execute":"qmp_capabilities"}`)
	f.call(conn, in, nil, `{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`)
	f.call(conn, in, unix.UnixRights(int(state.Fd())), `{"execute":"getfd","arguments":{"fdname":"state"}}`)
	f.call(conn, in, nil, `{"execute":"migrate-incoming","arguments":{"uri":"fd:state"}}`)
	for bytes.Contains(f.call(conn, in, nil, `{"execute":"query-status"}`), []byte(`"inmigrate"`)) {
		check(f.t, wait(ctx, time.Millisecond))
	}
	f.call(conn, in, nil, `{"execute":"cont"}`)
}

// dialQMP connects once QEMU listens.
func (f *warmFloor) dialQMP(ctx context.Context, said *bytes.Buffer) *net.UnixConn {
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: f.dir + "/api.sock"})
		if err == nil {
			return conn
		}
		if wait(ctx, time.Millisecond) != nil {
			f.t.Fatalf("QEMU does not listen: %v\n%s", err, said)
		}
	}
}

// call makes one call of QMP and returns its answer.
func (f *warmFloor) call(conn *net.UnixConn, in *bufio.Reader, rights []byte, line string) []byte {
	f.t.Helper()
	_, _, err := conn.WriteMsgUnix([]byte(line+"\n"), rights, nil)
	check(f.t, err)
	for {
		answer, err := in.ReadBytes('\n')
		check(f.t, err)
		switch {
		case bytes.HasPrefix(answer, []byte(`{"return"`)):
			return answer
		case bytes.HasPrefix(answer, []byte(`{"error"`)):
			f.t.Fatalf("%s: %s", line, answer)
		}
	}
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
