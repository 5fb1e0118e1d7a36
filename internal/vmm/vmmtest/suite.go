package vmmtest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vmm"
)

// limit is how long a guest has to boot and end, in software on a busy host.
const limit = 90 * time.Second

// Harness is a driver and what the suite needs to try it.
type Harness struct {
	Driver vmm.Driver
	Finder vmm.Finder
	// Spec returns a machine that can be launched, with an ID and places of
	// its own, which the harness removes when the test ends.
	Spec func(t *testing.T) vmm.Spec
}

// Run checks that a driver keeps what [vmm.Driver] and [vmm.Machine] promise.
// It leaves no process.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"Facts", testFacts},
		{"Launch", testLaunch},
		{"AttachAfterClose", testAttachAfterClose},
		{"AttachToNothing", testAttachToNothing},
		{"Killed", testKilled},
		{"GuestPowersOff", testGuestPowersOff},
		{"GuestReboots", testEnds(Reboot, vmm.ExitReboot)},
		{"GuestPanics", testEnds(Panic, vmm.ExitPanic)},
		{"EndSeenAfterAttach", testEndSeenAfterAttach},
		{"PauseAndResume", testPauseAndResume},
		{"FreezeAndRestore", testFreezeAndRestore},
		{"RestoreDamaged", testRestoreDamaged},
		{"DiskFound", testDisk},
		{"CleanUp", testCleanUp},
		{"MissingKernel", testMissingKernel},
		{"WrongSizes", testWrongSizes},
		{"TwoMachines", testTwoMachines},
		{"LaunchAgain", testLaunchAgain},
		{"LaunchCancelled", testLaunchCancelled},
		{"CancelAfterLaunch", testCancelAfterLaunch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(t, &bench{Harness: newHarness(t)})
		})
	}
}

// bench is a harness with short ways to say what tests do. Its methods fail
// the test.
type bench struct{ Harness }

// spec returns a machine whose guest does a. When the test ends its VMM is
// killed, if there is one.
func (b *bench) spec(t *testing.T, a Act) vmm.Spec {
	t.Helper()
	s := b.Spec(t)
	s.Cmdline = append(s.Cmdline, a.Arg())
	if b.Driver.Capabilities().NoSerials {
		s.Cmdline = append(s.Cmdline, noSerialsArg)
	}
	t.Cleanup(func() { b.kill(t, s) })
	return s
}

func (b *bench) launch(t *testing.T, s vmm.Spec) vmm.Machine {
	t.Helper()
	m, err := b.Driver.Launch(t.Context(), s)
	if err != nil {
		t.Fatalf("Launch = %v", err)
	}
	t.Cleanup(func() { closeMachine(t, m) })
	return m
}

func closeMachine(t *testing.T, m vmm.Machine) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// find returns the pid of the machine's process, 0 if there is none.
func (b *bench) find(t *testing.T, s vmm.Spec) int {
	t.Helper()
	p, err := b.Finder.Find(context.WithoutCancel(t.Context()), b.Driver.Signature(s), vmm.Hint{})
	if errors.Is(err, vmm.ErrNoProcess) {
		return 0
	}
	if err != nil {
		t.Fatalf("Find = %v", err)
	}
	defer p.Close()
	return p.PID()
}

// kill ends the machine's process, if there is one.
func (b *bench) kill(t *testing.T, s vmm.Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	p, err := b.Finder.Find(ctx, b.Driver.Signature(s), vmm.Hint{})
	if errors.Is(err, vmm.ErrNoProcess) {
		return
	}
	if err != nil {
		t.Fatalf("Find = %v", err)
	}
	defer p.Close()
	if err := p.Kill(ctx); err != nil {
		t.Errorf("Kill = %v", err)
	}
}

func (b *bench) wantStatus(t *testing.T, m vmm.Machine, want vmm.Status) {
	t.Helper()
	if got, err := m.Status(t.Context()); err != nil || got != want {
		t.Errorf("Status = %q, %v, want %q", got, err, want)
	}
}

// exit is what the driver tells of a guest that ended with e.
func (b *bench) exit(e vmm.Exit) vmm.Exit {
	if e == vmm.ExitReboot && b.Driver.Capabilities().EndByReboot {
		return vmm.ExitEnded
	}
	return e
}

// wantExit waits until m is done and checks why.
func (b *bench) wantExit(t *testing.T, s vmm.Spec, m vmm.Machine, want vmm.Exit) {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(limit):
		console, err := os.ReadFile(s.ConsoleLog)
		t.Fatalf("the machine goes on after %v; its console (%v):\n%s", limit, err, console)
	}
	if got := m.Exit(); got != b.exit(want) {
		t.Errorf("Exit = %q, want %q", got, b.exit(want))
	}
	if _, err := m.Status(t.Context()); err == nil {
		t.Error("Status of a machine that is done succeeded")
	}
}

// wantGone waits until the machine's process has ended.
func (b *bench) wantGone(t *testing.T, s vmm.Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p, err := b.Finder.Find(ctx, b.Driver.Signature(s), vmm.Hint{})
	if errors.Is(err, vmm.ErrNoProcess) {
		return
	}
	if err != nil {
		t.Fatalf("Find = %v", err)
	}
	defer p.Close()
	if err := p.Wait(ctx); err != nil {
		t.Errorf("wait for the process to end: %v", err)
	}
}

// wantNoSockets checks that nothing is left after CleanUp.
func (b *bench) wantNoSockets(t *testing.T, s vmm.Spec) {
	t.Helper()
	for _, path := range []string{s.APISock, s.AgentSock} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", filepath.Base(path), err)
		}
	}
}

func testFacts(t *testing.T, b *bench) {
	if b.Driver.Name() == "" || len(b.Driver.Capabilities().Formats) == 0 {
		t.Errorf("Name = %q, Capabilities = %+v", b.Driver.Name(), b.Driver.Capabilities())
	}
	if err := b.Driver.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	if v, err := b.Driver.Version(t.Context()); err != nil || v == "" || strings.ContainsAny(v, " \n") {
		t.Errorf("Version = %q, %v", v, err)
	}
}

func testLaunch(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	if pid := b.find(t, s); pid != 0 {
		t.Fatalf("Find before Launch = %d", pid)
	}
	m := b.launch(t, s)
	if pid := b.find(t, s); pid == 0 || pid != m.PID() {
		t.Errorf("Find = %d, PID = %d", pid, m.PID())
	}
	b.wantStatus(t, m, vmm.Running)
	if e := m.Agent(); e.Kind == "" {
		t.Errorf("Agent = %+v", e)
	}
	if e := m.Exit(); e != vmm.ExitUnknown {
		t.Errorf("Exit of a machine that runs = %q", e)
	}
	select {
	case <-m.Done():
		t.Error("Done of a machine that runs is closed")
	default:
	}
}

func testAttachAfterClose(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	m := b.launch(t, s)
	pid := m.PID()
	for range 3 {
		closeMachine(t, m)
		closeMachine(t, m)
		if got := b.find(t, s); got != pid {
			t.Fatalf("Find after Close = %d, want %d", got, pid)
		}
		again, err := b.Driver.Attach(t.Context(), s)
		if err != nil {
			t.Fatalf("Attach = %v", err)
		}
		m = again
		if m.PID() != pid {
			t.Errorf("PID after Attach = %d, want %d", m.PID(), pid)
		}
		b.wantStatus(t, m, vmm.Running)
	}
	closeMachine(t, m)
}

func testAttachToNothing(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	if m, err := b.Driver.Attach(t.Context(), s); err == nil {
		closeMachine(t, m)
		t.Error("Attach to a machine that never ran succeeded")
	}
	closeMachine(t, b.launch(t, s))
	b.kill(t, s)
	// Its sockets are still there.
	if m, err := b.Driver.Attach(t.Context(), s); err == nil {
		closeMachine(t, m)
		t.Error("Attach to a machine that was killed succeeded")
	}
}

func testKilled(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	m := b.launch(t, s)
	b.kill(t, s)
	b.wantExit(t, s, m, vmm.ExitUnknown)
	if pid := b.find(t, s); pid != 0 {
		t.Errorf("Find after Kill = %d", pid)
	}
}

// A power-off ends the VMM where the driver does not say otherwise.
func testGuestPowersOff(t *testing.T, b *bench) {
	if b.Driver.Capabilities().EndByReboot {
		t.Skip("a power-off does not end this VMM")
	}
	testEnds(PowerOff, vmm.ExitPowerOff)(t, b)
}

func testEnds(a Act, want vmm.Exit) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		s := b.spec(t, a)
		m := b.launch(t, s)
		b.wantExit(t, s, m, want)
		b.wantGone(t, s)
		closeMachine(t, m)
		if got := m.Exit(); got != b.exit(want) {
			t.Errorf("Exit after Close = %q, want %q", got, b.exit(want))
		}
	}
}

func testEndSeenAfterAttach(t *testing.T, b *bench) {
	const tries = 10 // on a busy host a guest may end before it is attached to
	for range tries {
		s := b.spec(t, Reboot)
		closeMachine(t, b.launch(t, s))
		m, err := b.Driver.Attach(t.Context(), s)
		if err != nil && b.find(t, s) == 0 {
			continue
		}
		if err != nil {
			t.Fatalf("Attach = %v", err)
		}
		b.wantExit(t, s, m, vmm.ExitReboot)
		closeMachine(t, m)
		return
	}
	t.Fatalf("the guest ended before Attach %d times", tries)
}

// A paused machine stands, also for who attaches later, and goes on.
func testPauseAndResume(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	m := b.launch(t, s)
	for range 2 {
		if err := m.Pause(t.Context()); err != nil {
			t.Fatalf("Pause = %v", err)
		}
		b.wantStatus(t, m, vmm.Paused)
	}
	wantChanged(t, m)
	closeMachine(t, m)
	m, err := b.Driver.Attach(t.Context(), s)
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	defer closeMachine(t, m)
	b.wantStatus(t, m, vmm.Paused)
	for range 2 {
		if err := m.Resume(t.Context()); err != nil {
			t.Fatalf("Resume = %v", err)
		}
		b.wantStatus(t, m, vmm.Running)
	}
	wantChanged(t, m)
	b.kill(t, s)
	b.wantExit(t, s, m, vmm.ExitUnknown)
	if m.Pause(t.Context()) == nil || m.Resume(t.Context()) == nil {
		t.Error("Pause or Resume of a machine that is done succeeded")
	}
}

func wantChanged(t *testing.T, m vmm.Machine) {
	t.Helper()
	select {
	case <-m.Changed():
	case <-time.After(limit):
		t.Fatal("Changed says nothing")
	}
}

func testDisk(t *testing.T, b *bench) {
	s := b.spec(t, AskDisk)
	// Behind another one, so that the first disk found is the wrong one.
	for _, d := range []struct {
		serial string
		act    Act
	}{{"other", Panic}, {DiskSerial, Reboot}} {
		path := filepath.Join(s.Dir, d.serial+".raw")
		content := make([]byte, 1<<20)
		copy(content, d.act+"\n")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		s.Disks = append(s.Disks, vmm.Disk{Serial: d.serial, Path: path, Format: vmm.Raw, ReadOnly: true})
	}
	m := b.launch(t, s)
	if got, err := m.DiskTraffic(t.Context()); err != nil || got.Read < 0 || got.Written < 0 {
		t.Errorf("DiskTraffic = %+v, %v", got, err)
	}
	b.wantExit(t, s, m, vmm.ExitReboot)
	if got, err := m.DiskTraffic(t.Context()); err == nil {
		t.Errorf("DiskTraffic of a machine that is done = %+v", got)
	}
}

func testCleanUp(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	for range 2 {
		if err := b.Driver.CleanUp(t.Context(), s); err != nil {
			t.Errorf("CleanUp of nothing = %v", err)
		}
	}
	m := b.launch(t, s)
	b.kill(t, s)
	<-m.Done()
	for range 2 {
		if err := b.Driver.CleanUp(t.Context(), s); err != nil {
			t.Errorf("CleanUp = %v", err)
		}
		b.wantNoSockets(t, s)
	}
}

func testMissingKernel(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	s.Kernel = filepath.Join(s.Dir, "no-such-kernel")
	m, err := b.Driver.Launch(t.Context(), s)
	if err == nil {
		closeMachine(t, m)
		t.Fatal("Launch without a kernel succeeded")
	}
	if !strings.Contains(err.Error(), "no-such-kernel") {
		t.Errorf("Launch = %v, want the VMM's words on the kernel", err)
	}
	b.kill(t, s)
	if err := b.Driver.CleanUp(t.Context(), s); err != nil {
		t.Errorf("CleanUp = %v", err)
	}
	b.wantNoSockets(t, s)
}

func testWrongSizes(t *testing.T, b *bench) {
	for name, edit := range map[string]func(*vmm.Spec){
		"no vCPU":         func(s *vmm.Spec) { s.VCPUs = 0 },
		"negative vCPUs":  func(s *vmm.Spec) { s.VCPUs = -2 },
		"absurd vCPUs":    func(s *vmm.Spec) { s.VCPUs = 1 << 20 },
		"no memory":       func(s *vmm.Spec) { s.MemoryBytes = 0 },
		"negative memory": func(s *vmm.Spec) { s.MemoryBytes = -1 << 30 },
		"absurd memory":   func(s *vmm.Spec) { s.MemoryBytes = 1 << 62 },
	} {
		s := b.spec(t, Idle)
		edit(&s)
		m, err := b.Driver.Launch(t.Context(), s)
		if err == nil {
			closeMachine(t, m)
		}
		if errkind.Of(err) != errkind.Usage {
			t.Errorf("%s: Launch = %v, want an error of kind usage", name, err)
		}
		if pid := b.find(t, s); pid != 0 {
			t.Errorf("%s: a process %d was started", name, pid)
		}
	}
}

func testTwoMachines(t *testing.T, b *bench) {
	one, two := b.spec(t, Idle), b.spec(t, Idle)
	type result struct {
		m   vmm.Machine
		err error
	}
	ch := make(chan result)
	go func() {
		m, err := b.Driver.Launch(t.Context(), one)
		ch <- result{m, err}
	}()
	m2 := b.launch(t, two)
	r := <-ch
	if r.err != nil {
		t.Fatalf("Launch of the other = %v", r.err)
	}
	defer closeMachine(t, r.m)
	if p1, p2 := b.find(t, one), b.find(t, two); p1 != r.m.PID() || p2 != m2.PID() || p1 == p2 {
		t.Errorf("Find = %d and %d, want %d and %d", p1, p2, r.m.PID(), m2.PID())
	}
	b.kill(t, one)
	b.wantExit(t, one, r.m, vmm.ExitUnknown)
	b.wantStatus(t, m2, vmm.Running)
}

// A second VMM of one machine would take the first one's sockets and disks.
func testLaunchAgain(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	m := b.launch(t, s)
	pid := m.PID()
	if again, err := b.Driver.Launch(t.Context(), s); err == nil {
		closeMachine(t, again)
		t.Error("Launch of a machine that runs succeeded")
	}
	if got := b.find(t, s); got != pid {
		t.Errorf("Find = %d, want %d", got, pid)
	}
	b.wantStatus(t, m, vmm.Running)
	b.kill(t, s)
	<-m.Done()
	// Without CleanUp, as after a crash.
	b.wantStatus(t, b.launch(t, s), vmm.Running)
}

func testLaunchCancelled(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m, err := b.Driver.Launch(ctx, s)
	if err == nil {
		closeMachine(t, m)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Launch = %v, want that it was cancelled", err)
	}
}

func testCancelAfterLaunch(t *testing.T, b *bench) {
	s := b.spec(t, Idle)
	ctx, cancel := context.WithCancel(t.Context())
	m, err := b.Driver.Launch(ctx, s)
	cancel()
	if err != nil {
		t.Fatalf("Launch = %v", err)
	}
	defer closeMachine(t, m)
	b.wantStatus(t, m, vmm.Running)
	if pid := b.find(t, s); pid != m.PID() {
		t.Errorf("Find = %d, want %d", pid, m.PID())
	}
}
