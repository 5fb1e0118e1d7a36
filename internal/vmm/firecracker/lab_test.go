//go:build lab

package firecracker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/handle"
	"banger/internal/hostcmd"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmproc"
	"banger/internal/vmm/vmmtest"
)

const (
	labUID   = 0x6fffff00
	labLimit = 90 * time.Second
)

// labGuest is what the lab's machines boot: vmlinux and the modules below boot
// in BANGER_LAB_PARTS.
func labGuest(t *testing.T) vmmtest.Guest {
	t.Helper()
	parts := cmp.Or(os.Getenv("BANGER_LAB_PARTS"), "/parts/cache/kernels/debian-cloud/current")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	g := vmmtest.Guest{Kernel: filepath.Join(parts, "vmlinux"), Busybox: busybox, UID: labUID}
	for _, m := range []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk"} {
		g.Modules = append(g.Modules, filepath.Join(parts, "boot", m+".ko"))
	}
	return g
}

// The real Firecracker keeps what every driver promises.
func TestVMMSuiteFirecracker(t *testing.T) {
	g := labGuest(t)
	vmmtest.Run(t, func(*testing.T) vmmtest.Harness {
		return vmmtest.Harness{Driver: New(Options{}), Finder: &handle.Finder{}, Spec: g.Spec}
	})
}

// So does QEMU where the processor runs its guests.
func TestVMMSuiteQEMUWithKVM(t *testing.T) {
	g := labGuest(t)
	d := qemu.New(qemu.Options{})
	if !d.Capabilities().Accelerated {
		t.Fatal("QEMU found no KVM in the lab")
	}
	vmmtest.Run(t, func(*testing.T) vmmtest.Harness {
		return vmmtest.Harness{Driver: d, Finder: &handle.Finder{}, Spec: g.Spec}
	})
}

// labSpec returns a machine whose guest does a, with a disk that can be written
// and an interface, and the name of its tap. Its VMM is killed when the test
// ends.
func labSpec(t *testing.T, a vmmtest.Act) vmm.Spec {
	t.Helper()
	s := labGuest(t).Spec(t)
	s.Cmdline = append(s.Cmdline, a.Arg())
	disk := filepath.Join(s.Dir, "work.raw")
	if err := errors.Join(os.WriteFile(disk, make([]byte, 1<<20), 0o600), os.Chown(disk, labUID, labUID)); err != nil {
		t.Fatal(err)
	}
	s.Disks = []vmm.Disk{{Serial: "work", Path: disk, Format: vmm.Raw}}
	s.NICs = []vmm.NIC{{Tap: addTap(t, s.ID), MAC: "02:ba:00:00:00:01"}}
	t.Cleanup(func() { labKill(t, s) })
	return s
}

// addTap makes a tap as the network does, which is gone when the test ends.
func addTap(t *testing.T, id string) string {
	t.Helper()
	name := "t" + id[len(id)-10:]
	for _, args := range [][]string{
		{"tuntap", "add", name, "mode", "tap", "user", fmt.Sprint(labUID)},
		{"link", "set", name, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip link del: %v: %s", err, out)
		}
	})
	return name
}

func labKill(t *testing.T, s vmm.Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), labLimit)
	defer cancel()
	p, err := new(handle.Finder).Find(ctx, New(Options{}).Signature(s), vmm.Hint{})
	if errors.Is(err, vmm.ErrNoProcess) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Kill(ctx); err != nil {
		t.Error(err)
	}
}

func labLaunch(t *testing.T, s vmm.Spec) *machine {
	t.Helper()
	began := time.Now()
	m, err := New(Options{}).Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("launched in %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { m.Close() })
	return m.(*machine)
}

// awaitConsole waits until the guest has said a line.
func awaitConsole(t *testing.T, s vmm.Spec, line string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(labLimit); time.Now().Before(end); <-tick.C {
		if text, err := os.ReadFile(s.ConsoleLog); err == nil && bytes.Contains(text, []byte(line)) {
			return
		}
	}
	text, err := os.ReadFile(s.ConsoleLog)
	t.Fatalf("the console (%v) never said %q:\n%s", err, line, text)
}

// What Firecracker was told is what it says, its guest reads its disk, its tap
// has a carrier, and what passed is counted.
func TestDevices(t *testing.T) {
	s := labSpec(t, vmmtest.Idle)
	m := labLaunch(t, s)
	c, err := m.api.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := drive{ID: "disk0", Path: "work.raw", Cache: cacheWriteback, IOEngine: "Sync"}
	if len(c.Drives) != 1 || c.Drives[0] != want {
		t.Errorf("drives = %+v, want %+v", c.Drives, want)
	}
	if c.Vsock == nil || c.Vsock.Path != "run/agent.sock" || c.Entropy == nil || len(c.NICs) != 1 || c.NICs[0].Tap != s.NICs[0].Tap {
		t.Errorf("config = %+v", c)
	}
	if mc, err := m.api.machine(t.Context()); err != nil || mc.VCPUs != 1 || mc.MemoryMiB != 128 {
		t.Errorf("machine = %+v, %v", mc, err)
	}
	if v, err := m.api.version(t.Context()); err != nil || !strings.HasPrefix(v, "1.") {
		t.Errorf("version = %q, %v", v, err)
	}
	began := time.Now()
	awaitConsole(t, s, "vmmtest: idle")
	t.Logf("its guest's first process ran %v later", time.Since(began).Round(time.Millisecond))
	if carrier, err := os.ReadFile("/sys/class/net/" + s.NICs[0].Tap + "/carrier"); err != nil || string(carrier) != "1\n" {
		t.Errorf("the tap's carrier is %q, %v", carrier, err)
	}
	if fi, err := os.Stat(s.AgentSock); err != nil || fi.Mode().Type() != os.ModeSocket {
		t.Errorf("agent socket: %v, %v", fi, err)
	}
	first, err := m.DiskTraffic(t.Context())
	if err != nil || first.Read == 0 {
		t.Errorf("DiskTraffic = %+v, %v", first, err)
	}
	if again, err := m.DiskTraffic(t.Context()); err != nil || again != first {
		t.Errorf("DiskTraffic once more = %+v, %v, want %+v", again, err, first)
	}
	labKill(t, s)
	<-m.Done()
	if err := New(Options{}).CleanUp(t.Context(), s); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(runLink(s)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link to the sockets is left: %v", err)
	}
}

// A snapshot of one machine runs as another, in another directory and with
// another tap.
func TestSnapshot(t *testing.T) {
	first, second := labSpec(t, vmmtest.Idle), labSpec(t, vmmtest.Idle)
	m := labLaunch(t, first)
	awaitConsole(t, first, "vmmtest: idle")
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap := snapshotCreate{State: filepath.Join(first.Dir, "state"), Memory: filepath.Join(first.Dir, "memory")}
	if err := m.api.createSnapshot(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	labKill(t, first)
	if err := os.Chmod(first.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{snap.State, snap.Memory} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	child, f := labStart(t, second)
	n, err := connect(t.Context(), child, second, f.console.From)
	if err != nil {
		t.Fatal(child.Explain(err, func() string { return lastWords(second.VMMLog) }))
	}
	defer n.Close()
	began := time.Now()
	err = n.api.loadSnapshot(t.Context(), snapshotLoad{
		State: snap.State, Memory: memoryBackend{memoryFile, snap.Memory}, Resume: true,
		Overrides: []networkOverride{{nicID(0), second.NICs[0].Tap}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(began).Round(time.Millisecond))
	if st, err := n.Status(t.Context()); err != nil || st != vmm.Running {
		t.Errorf("Status = %q, %v", st, err)
	}
	if fi, err := os.Stat(second.AgentSock); err != nil || fi.Mode().Type() != os.ModeSocket {
		t.Errorf("agent socket: %v, %v", fi, err)
	}
}

// labStart starts a Firecracker that was told nothing.
func labStart(t *testing.T, s vmm.Spec) (*vmmproc.Child, files) {
	t.Helper()
	path, err := New(Options{}).binary()
	if err != nil {
		t.Fatal(err)
	}
	f, err := prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	child, err := vmmproc.Start(hostcmd.Detached{
		Argv: append([]string{path}, arguments(s)...), Dir: s.Dir,
		Output: f.console.File, LogFile: f.words.File,
		Credential: &hostcmd.Credential{UID: s.UID, GID: s.UID, Groups: vmmproc.KVMGroups()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return child, f
}

// What the real one refuses is told in its own words, in one line.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(t *testing.T, s *vmm.Spec)
		want string
		kind errkind.Kind
	}{
		"no such tap":  {func(_ *testing.T, s *vmm.Spec) { s.NICs[0].Tap = "none" }, "tap", errkind.Internal},
		"no such disk": {func(_ *testing.T, s *vmm.Spec) { s.Disks[0].Path = "none" }, "none", errkind.Internal},
		"initrd unreadable": {func(t *testing.T, s *vmm.Spec) {
			if err := os.Chmod(s.Initrd, 0); err != nil {
				t.Fatal(err)
			}
		}, "denied", errkind.Internal},
		"no ELF": {func(_ *testing.T, s *vmm.Spec) { s.Kernel = s.Initrd }, "no ELF", errkind.Usage},
		"a program": {func(t *testing.T, s *vmm.Spec) {
			var err error
			if s.Kernel, err = exec.LookPath("busybox"); err != nil {
				t.Fatal(err)
			}
		}, "no kernel", errkind.Usage},
		"a kernel in part": {func(t *testing.T, s *vmm.Spec) {
			whole := s.Kernel
			s.Kernel = filepath.Join(s.Dir, "vmlinux")
			if out, err := exec.Command("dd", "if="+whole, "of="+s.Kernel, "bs=1M", "count=30", "status=none").CombinedOutput(); err != nil {
				t.Fatalf("dd: %v: %s", err, out)
			}
		}, "no ELF", errkind.Usage},
		"too many vCPUs": {func(_ *testing.T, s *vmm.Spec) { s.VCPUs = 33 }, "at most 32", errkind.Usage},
	} {
		t.Run(name, func(t *testing.T) {
			s := labSpec(t, vmmtest.Idle)
			tt.edit(t, &s)
			m, err := New(Options{}).Launch(t.Context(), s)
			if err == nil {
				m.Close()
				t.Fatal("Launch succeeded")
			}
			t.Log(err)
			if errkind.Of(err) != tt.kind || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Launch = %v of kind %q, want %q of kind %q", err, errkind.Of(err), tt.want, tt.kind)
			}
			labKill(t, s)
			if err := New(Options{}).CleanUp(t.Context(), s); err != nil {
				t.Error(err)
			}
			for _, path := range []string{s.APISock, s.AgentSock, runLink(s)} {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
		})
	}
}
