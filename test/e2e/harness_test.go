//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/config"
	"banger/test/netns"
	"banger/test/parts"
)

var (
	binDir   string // banger and bangerd, the latter with failpoints
	cacheDir string // images and kernels, shared by all tests
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests run real machines and need root")
		return 1
	}
	syscall.Umask(0o022)
	remove, err := findParts()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	return m.Run()
}

// findParts makes what the tests run, or takes what was handed in: in the lab
// there is no compiler and no package archive.
func findParts() (remove func(), err error) {
	if dir := os.Getenv("BANGER_E2E_PARTS"); dir != "" {
		binDir, cacheDir = filepath.Join(dir, "bin"), filepath.Join(dir, "cache")
		return func() {}, nil
	}
	if binDir, err = os.MkdirTemp("/tmp", "banger-e2e-bin-"); err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(binDir) }
	if cacheDir, err = filepath.Abs("../../.cache/test"); err == nil {
		err = parts.Programs(binDir)
	}
	if err == nil {
		err = parts.Fetch(binDir, cacheDir, "busybox", "debian-bookworm")
	}
	if err != nil {
		remove()
	}
	return remove, err
}

// A bed is one daemon's ground: a root of its own, and a network namespace of
// its own with another one beside it that plays the internet.
type bed struct {
	t          *testing.T
	host       *netns.NS
	internet   *netns.NS
	root       string
	paths      config.Paths
	failpoints string // for daemons started from now on
	resolvConf string // stands for /etc/resolv.conf, if it is not empty
	outside    bool   // daemons run in the host's own namespace, where packages come from; machines have no network
}

// newBed returns a ground on which the busybox image is the default; conf are
// lines of its configuration. When the test ends, however it does, the daemon is stopped, and anything left of its
// machines is an error and is removed.
func newBed(t *testing.T, conf ...string) *bed {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "banger-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, root: root}
	b.host, b.internet = netns.New(t)
	if b.paths, err = config.NewPaths(root); err != nil {
		t.Fatal(err)
	}
	b.configure(append([]string{
		fmt.Sprintf("cache = %q", cacheDir),
		`image = "busybox"`, `memory = "192M"`, `disk = "64M"`, `vcpus = 1`,
		`templates = false`, `pool = 0`, // made in the background, they take the host from other tests
		fmt.Sprintf("driver = %q", cmp.Or(os.Getenv("BANGER_E2E_DRIVER"), "auto")),
	}, conf...)...)
	t.Cleanup(b.close)
	return b
}

// configure writes the configuration for the daemons to come; a later line
// takes the place of an earlier one with the same key.
func (b *bed) configure(lines ...string) {
	b.t.Helper()
	byKey := make(map[string]string)
	for _, l := range lines {
		key, _, _ := strings.Cut(l, " = ")
		byKey[key] = l
	}
	text := strings.Join(slices.Sorted(maps.Values(byKey)), "\n") + "\n"
	if err := os.WriteFile(b.paths.Config, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) close() {
	if b.t.Failed() {
		b.logEnds()
	}
	b.failpoints = ""
	var list struct {
		VMs []struct{ Name string } `json:"vms"`
	}
	r := b.run("vm", "list", "--json")
	if r.code != 0 {
		b.t.Errorf("vm list at the end: %s", r.stderr)
	}
	if err := json.Unmarshal(r.stdout, &list); err == nil {
		for _, v := range list.VMs {
			if r := b.run("vm", "delete", v.Name); r.code != 0 {
				b.t.Errorf("delete %s at the end: %s", v.Name, r.stderr)
			}
		}
	}
	if r := b.run("daemon", "stop"); r.code != 0 {
		b.t.Errorf("daemon stop at the end: %s", r.stderr)
	}
	if left := b.inventory(); len(left) > 0 {
		b.t.Errorf("left on the host: %s", strings.Join(left, "; "))
	}
	for _, pid := range b.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	os.RemoveAll(b.paths.Run)
	if err := os.RemoveAll(b.root); err != nil {
		b.t.Error(err)
	}
}

// logEnds shows how the logs of the daemon and of each machine's guest and VMM
// end.
func (b *bed) logEnds() {
	logs, err := filepath.Glob(filepath.Join(b.paths.VMs(), "*", "*.log"))
	if err != nil {
		b.t.Error(err)
	}
	for _, path := range append(logs, b.paths.DaemonLog()) {
		if log, err := os.ReadFile(path); err == nil {
			b.t.Logf("%s ends:\n%s", strings.TrimPrefix(path, b.root+"/"), lastBytes(log, 8<<10))
		}
	}
}

// blockInventory lists the device-mapper targets and loop devices of the bed's
// machines, on a host that has such.
func (b *bed) blockInventory() []string {
	if _, err := os.Stat("/dev/mapper/control"); err != nil {
		return nil
	}
	var found []string
	for what, argv := range map[string][]string{"target": {"dmsetup", "ls"}, "loop": {"losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"}} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			b.t.Errorf("%q: %v: %s", argv, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, b.paths.Tag) || strings.Contains(line, b.root) || strings.Contains(line, cacheDir) {
				found = append(found, what+" "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

// networkInventory lists the links and tables in the bed's namespace that it
// did not have in the beginning, and interfaces that forward.
func (b *bed) networkInventory() []string {
	var found []string
	for line := range strings.Lines(b.host.IP(b.t, "-o", "link")) {
		if name := strings.Fields(line)[1]; name != "lo:" && !strings.HasPrefix(name, netns.Uplink+"@") {
			found = append(found, "link "+strings.TrimSpace(line))
		}
	}
	for line := range strings.Lines(b.host.Output(b.t, "nft", "list", "tables")) {
		found = append(found, strings.TrimSpace(line))
	}
	forwards := b.host.Output(b.t, "sh", "-c", "cat /proc/sys/net/ipv4/conf/"+netns.Uplink+"/forwarding")
	if strings.TrimSpace(forwards) != "0" {
		found = append(found, "the uplink forwards")
	}
	return found
}

// networkLeft is networkInventory when there is nothing more in it, or after some
// seconds: the tap of a machine that was leased goes in the background.
func (b *bed) networkLeft() (left []string) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if left = b.networkInventory(); len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// inventory lists what there is on the host of this bed's machines and daemon:
// processes, mounts, links, tables, cgroups, sockets and machines' directories.
func (b *bed) inventory() []string {
	var found []string
	for _, pid := range b.processes() {
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		found = append(found, fmt.Sprintf("process %d %s", pid, strings.ReplaceAll(string(cmd), "\x00", " ")))
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		b.t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.root) {
			found = append(found, "mount "+line)
		}
	}
	found = append(found, b.networkInventory()...)
	found = append(found, b.blockInventory()...)
	found = append(found, b.cgroupInventory()...)
	for _, dir := range []string{b.paths.Run, b.paths.VMs()} {
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && path != b.paths.VMs() {
				found = append(found, "file "+path)
			}
			return nil
		})
	}
	return found
}

// processes lists the pids of everything whose command line names this bed.
func (b *bed) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && (bytes.Contains(cmd, []byte(b.root)) || bytes.Contains(cmd, []byte(b.paths.Run))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

type result struct {
	code           int
	stdout, stderr []byte
}

// cmd returns a banger command on this bed.
func (b *bed) cmd(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	b.t.Cleanup(cancel)
	return b.program(ctx, append([]string{filepath.Join(binDir, "banger")}, args...)...)
}

// program returns a command on this bed.
func (b *bed) program(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + b.host.Name}, argv...)...)
	if b.outside {
		c = exec.CommandContext(ctx, argv[0], argv[1:]...)
	}
	c.Env = append(os.Environ(), "BANGER_ROOT="+b.root)
	if b.resolvConf != "" {
		through(c, "unshare", "-m", "sh", "-c", "mount --bind "+b.resolvConf+` /etc/resolv.conf && exec "$0" "$@"`)
	}
	if b.failpoints != "" {
		c.Env = append(c.Env, "BANGER_FAILPOINTS="+b.failpoints)
	}
	return c
}

// through has another program run a command of cmd's, inside the bed's
// namespace.
func through(c *exec.Cmd, argv ...string) {
	c.Args = slices.Concat(c.Args[:2], argv, c.Args[2:])
}

// run runs banger to its end.
func (b *bed) run(args ...string) result { return b.runIn("", args...) }

func (b *bed) runIn(stdin string, args ...string) result {
	c := b.cmd(args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	err := c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		b.t.Fatalf("banger %q: %v", args, err)
	}
	return result{c.ProcessState.ExitCode(), out.Bytes(), errs.Bytes()}
}

// must runs banger and fails the test unless it ends with 0.
func (b *bed) must(args ...string) string {
	b.t.Helper()
	r := b.run(args...)
	if r.code != 0 {
		b.t.Fatalf("banger %q: exit %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return string(r.stdout)
}

// wants runs banger and checks code and, where they are not empty, parts of
// its output and error output.
func (b *bed) wants(code int, stdout, stderr string, args ...string) {
	b.t.Helper()
	r := b.run(args...)
	if r.code != code || !strings.Contains(string(r.stdout), stdout) || !strings.Contains(string(r.stderr), stderr) {
		b.t.Errorf("banger %q: exit %d\nstdout: %s\nstderr: %s\nwant exit %d with %q and %q", args, r.code, r.stdout, r.stderr, code, stdout, stderr)
	}
}

// show returns vm show --json.
func (b *bed) show(name string) map[string]any {
	b.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(b.must("vm", "show", "--json", name)), &v); err != nil {
		b.t.Fatal(err)
	}
	return v
}

// vmmPID returns the process of a running machine.
func (b *bed) vmmPID(name string) int {
	b.t.Helper()
	h, _ := b.show(name)["handles"].(map[string]any)
	pid, ok := h["pid"].(float64)
	if !ok {
		b.t.Fatalf("machine %s has no pid: %v", name, h)
	}
	return int(pid)
}

// vmmPIDs lists the VMMs of the bed's machines, whatever is known of those.
func (b *bed) vmmPIDs() []int {
	return slices.DeleteFunc(b.processes(), func(pid int) bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		name := filepath.Base(exe)
		return !strings.HasPrefix(name, "qemu-system") && !strings.HasPrefix(name, "firecracker")
	})
}

// daemonPID returns the process of the daemon that runs, 0 for none.
func (b *bed) daemonPID() int {
	for _, pid := range b.processes() {
		cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasSuffix(strings.SplitN(string(cmd), "\x00", 2)[0], "/bangerd") {
			return pid
		}
	}
	return 0
}

// killDaemon ends the daemon with SIGKILL and waits until it is gone.
func (b *bed) killDaemon() {
	b.t.Helper()
	pid := b.daemonPID()
	if pid == 0 {
		b.t.Fatal("no daemon runs")
	}
	b.kill(pid)
}

func (b *bed) kill(pid int) {
	b.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("process is gone", 10*time.Second, func() bool { return !alive(pid) })
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// eventually waits until ok, and fails the test after limit.
func (b *bed) eventually(what string, limit time.Duration, ok func() bool) {
	b.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// vmDirs lists the directories of machines.
func (b *bed) vmDirs() []string {
	entries, err := os.ReadDir(b.paths.VMs())
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
