package vmmtest

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/vmm"
)

// frozen freezes a guest that waits for what its disk will say.
func (b *bench) frozen(t *testing.T) (s vmm.Spec, f vmm.Frozen) {
	t.Helper()
	if !b.Driver.Capabilities().Freezes {
		t.Skip("this driver freezes no guests")
	}
	s = b.spec(t, AwaitDisk)
	b.giveDisk(t, &s, "")
	dir, err := os.MkdirTemp("/tmp", "vmmtest-") // out of reach for the VMM's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f = vmm.Frozen{RAM: filepath.Join(dir, "ram"), State: filepath.Join(dir, "state")}
	s.FreezeTo = &f
	m := b.launch(t, s)
	b.awaitConsole(t, s, "vmmtest: "+string(AwaitDisk))
	if err := m.Freeze(t.Context()); err == nil {
		t.Error("Freeze of a guest that runs succeeded")
	}
	if err := os.Remove(f.State); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatalf("Pause = %v", err)
	}
	if err := m.Freeze(t.Context()); err != nil {
		t.Fatalf("Freeze = %v", err)
	}
	b.kill(t, s)
	closeMachine(t, m)
	for _, path := range []string{dir, f.RAM, f.State} { // as templates are
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s, f
}

// giveDisk gives the machine the disk that AwaitDisk looks at, with act on it;
// empty: it is too small for one.
func (b *bench) giveDisk(t *testing.T, s *vmm.Spec, act Act) {
	t.Helper()
	content := make([]byte, AwaitedAt)
	s.Disks = []vmm.Disk{{Serial: "other", ReadOnly: true}, {Serial: DiskSerial}}
	for i := range s.Disks {
		d := &s.Disks[i]
		d.Format, d.Path = vmm.Raw, filepath.Join(s.Dir, d.Serial+".raw")
		if d.Serial == DiskSerial && act != "" {
			content = append(content, make([]byte, AwaitedAt)...)
			copy(content[AwaitedAt:], act+"\n")
		}
		if err := os.WriteFile(d.Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d.Path, int(s.UID), int(s.UID)); err != nil && os.Geteuid() == 0 {
			t.Fatal(err)
		}
	}
}

// awaitConsole waits until the guest has written text on its console.
func (b *bench) awaitConsole(t *testing.T, s vmm.Spec, text string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		console, err := os.ReadFile(s.ConsoleLog)
		if err == nil && bytes.Contains(console, []byte(text)) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the console (%v) does not say %q:\n%s", err, text, console)
		}
	}
}

// restored is the machine s, at places and with a disk of its own.
func (b *bench) restored(t *testing.T, f vmm.Frozen, act Act) vmm.Spec {
	t.Helper()
	s := b.spec(t, AwaitDisk)
	b.giveDisk(t, &s, act)
	s.Restore, s.Kernel, s.Initrd, s.Cmdline = &f, "", "", nil
	return s
}

// Two guests go on at once where one was frozen, each with memory and a disk of
// its own, and the files stay as they were.
func testFreezeAndRestore(t *testing.T, b *bench) {
	_, f := b.frozen(t)
	before := sums(t, f)
	one, two := b.restored(t, f, Reboot), b.restored(t, f, "")
	m1, m2 := b.launch(t, one), b.launch(t, two)
	b.wantExit(t, one, m1, vmm.ExitReboot)
	b.wantStatus(t, m2, vmm.Running)
	if err := m2.Pause(t.Context()); err != nil {
		t.Errorf("Pause = %v", err)
	}
	closeMachine(t, m2)
	m2, err := b.Driver.Attach(t.Context(), two)
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	defer closeMachine(t, m2)
	b.wantStatus(t, m2, vmm.Paused)
	if sums(t, f) != before {
		t.Error("the frozen guest's files have changed")
	}
	if err := m2.Freeze(t.Context()); err == nil {
		t.Error("Freeze of a machine that was not to be frozen succeeded")
	}
}

func sums(t *testing.T, f vmm.Frozen) (s [2][sha256.Size]byte) {
	t.Helper()
	for i, path := range []string{f.RAM, f.State} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s[i] = sha256.Sum256(data)
	}
	return s
}

// What is damaged is told, and nothing goes on that was not frozen so.
func testRestoreDamaged(t *testing.T, b *bench) {
	_, f := b.frozen(t)
	state, err := os.ReadFile(f.State)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(f.RAM)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		damage func() error
	}{
		{"no state", func() error { return os.Remove(f.State) }},
		{"half a state", func() error { return os.WriteFile(f.State, state[:len(state)/2], 0o644) }},
		{"an empty state", func() error { return os.WriteFile(f.State, nil, 0o644) }},
		{"another state", func() error { return os.WriteFile(f.State, bytes.Repeat([]byte("banger\n"), 10000), 0o644) }},
		{"memory cut short", func() error { return os.Truncate(f.RAM, fi.Size()/2) }},
		{"no memory", func() error { return os.Remove(f.RAM) }},
	} {
		if err := tt.damage(); err != nil {
			t.Fatal(err)
		}
		s := b.restored(t, f, "")
		m, err := b.Driver.Launch(t.Context(), s)
		if err == nil {
			closeMachine(t, m)
			t.Errorf("%s: Launch succeeded", tt.name)
		}
		t.Logf("%s: %v", tt.name, err)
		b.kill(t, s)
		if err := os.WriteFile(f.State, state, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
