package templatefs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banger/internal/errkind"
	"banger/internal/template"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEMPLATEFS_TEST_HOLD"); dir != "" {
		hold(dir)
	}
	goleak.VerifyTestMain(m)
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	aToken  = "00112233445566778899aabbccddeeff"
	aBootID = "6f1d1a1e-9f0b-4e6c-8d51-0a2b3c4d5e6f"
	ramSize = 2 << 20
)

func aGuest() template.Template { return template.Template{Token: aToken, BootID: aBootID} }

// aKey returns the key of an image.
func aKey(image string) template.Key {
	return template.Key{
		Image: image, ImageID: "0a", Kernel: "debian-cloud", KernelID: "0b", Agent: "0c", Driver: "qemu",
		VMM: "QEMU 7.2.0 <&>", CPU: "a model\nwith flags", VCPUs: 2, MemoryBytes: ramSize, RootBytes: 16 << 30, WorkBytes: 8 << 30, Network: true,
	}
}

func open(t testing.TB, dir string) *Library {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return t0 }
	return l
}

// fill makes the four files in a stage's directory: memory with a page of
// data, a hole, another page and another hole.
func fill(t testing.TB, dir string) {
	t.Helper()
	for name, data := range map[string]string{template.StateName: "devices", template.RootName: strings.Repeat("layer", 50000), template.WorkName: "a disk"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, template.RAMName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt([]byte("first"), 0)
	_, err2 := f.WriteAt([]byte("second"), ramSize/2)
	if err := errors.Join(err1, err2, f.Truncate(ramSize), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, l *Library, k template.Key) *stage {
	t.Helper()
	s, err := l.Stage(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*stage)
}

// publish makes a template of an image.
func publish(t testing.TB, l *Library, image string) template.Template {
	t.Helper()
	s := begin(t, l, aKey(image))
	fill(t, s.Dir())
	x, err := s.Publish(context.Background(), aGuest())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// die ends a stage as the kernel does when its maker dies.
func (s *stage) die() { s.unlock() }

// nothingOf fails unless nothing is left of a template, and another can be made.
func nothingOf(t *testing.T, l *Library, k template.Key) {
	t.Helper()
	if _, err := l.Get(context.Background(), k.ID()); errkind.Of(err) != errkind.NotFound {
		t.Errorf("Get = %v, want not found", err)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
	if left, err := os.ReadDir(filepath.Join(l.dir, ".staging")); err != nil || len(left) != 0 {
		t.Errorf("staging holds %v, %v", left, err)
	}
	s := begin(t, l, k)
	if err := s.Discard(); err != nil {
		t.Error(err)
	}
}

// whole fails unless a template is there and all of it is right.
func whole(t *testing.T, l *Library, id string) {
	t.Helper()
	x, err := l.Use(context.Background(), id)
	if err != nil || x.Damaged != "" {
		t.Errorf("Use = %+v, %v", x, err)
	}
	if err := l.Verify(context.Background(), id); err != nil {
		t.Errorf("Verify = %v", err)
	}
}
