package handle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

const id = vm.ID("0123abcd")

func newCache(t *testing.T) (c *Cache, path string) {
	t.Helper()
	dir := t.TempDir()
	pathOf := func(id vm.ID) string { return filepath.Join(dir, string(id)+".json") }
	return NewCache(pathOf), pathOf(id)
}

func full() Handle {
	return Handle{
		PID: 4711, StartTime: 1<<63 + 1, Driver: "qemu", DriverVersion: "7.2.22",
		TapDevice: "bgr-3f", BaseLoop: "/dev/loop3", CowLoop: "/dev/loop4",
		DMName: "banger-3f", DMDev: "/dev/mapper/banger-3f",
	}
}

func TestRoundTrip(t *testing.T) {
	c, path := newCache(t)
	if err := c.Update(id, func(h *Handle) { *h = full() }); err != nil {
		t.Fatal(err)
	}
	want := c.Get(id)
	if want.VMID != id || want.BootID == "" || want.PID != 4711 {
		t.Errorf("cached: %+v", want)
	}
	got, why := NewCache(c.pathOf).Load(id)
	if got != want || why != "" {
		t.Errorf("Load gives %+v, %q, want %+v", got, why, want)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != 0o600 {
		t.Errorf("Stat gives %v, %v", fi.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`  "pid": 4711,`, `  "tap_device": "bgr-3f",`, `  "dm_dev": "/dev/mapper/banger-3f"`} {
		if !strings.Contains(string(data), "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, data)
		}
	}
}

func TestUpdateKeepsWhatItDoesNotChange(t *testing.T) {
	c, _ := newCache(t)
	for _, f := range []func(*Handle){
		func(h *Handle) { h.BaseLoop = "/dev/loop3" },
		func(h *Handle) { h.PID, h.StartTime = 12, 34 },
	} {
		if err := c.Update(id, f); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := NewCache(c.pathOf).Load(id)
	if got.BaseLoop != "/dev/loop3" || got.PID != 12 || got != c.Get(id) {
		t.Errorf("it became %+v", got)
	}
}

// The file is written before the cache: if it cannot be, the cache stays.
func TestUpdateThatCannotWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vm")
	c := NewCache(func(vm.ID) string { return filepath.Join(dir, "handles.json") })
	if err := c.Update(id, func(h *Handle) { h.PID = 1 }); err == nil {
		t.Fatal("Update without a directory succeeds")
	}
	if h := c.Get(id); h != (Handle{}) {
		t.Errorf("cached all the same: %+v", h)
	}
}

func TestRemove(t *testing.T) {
	c, path := newCache(t)
	if err := c.Update(id, func(h *Handle) { h.PID = 1 }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if h := c.Get(id); h != (Handle{}) {
		t.Errorf("still cached: %+v", h)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}

	outside := t.TempDir()
	for _, plant := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(path, "deep"), 0o700) },
		func() error { return os.Symlink(outside, path) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(id); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("what the link led to: %v", err)
	}
}

func TestLoadMissing(t *testing.T) {
	c, _ := newCache(t)
	if h, why := c.Load(id); h != (Handle{}) || why != "" {
		t.Errorf("Load gives %+v, %q", h, why)
	}
}

func TestLoadWhatCannotBeUsed(t *testing.T) {
	boot, err := readBootID()
	if err != nil {
		t.Fatal(err)
	}
	good := full()
	good.VMID, good.BootID = id, boot
	with := func(f func(*Handle)) []byte {
		h := good
		f(&h)
		data, err := encode(h)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole := with(func(*Handle) {})
	write := func(data []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, data, 0o600) }
	}
	tests := []struct {
		name  string
		plant func(path string) error
		why   string
	}{
		{"empty", write(nil), "no JSON"},
		{"garbage", write([]byte("\x00\xff{")), "no JSON"},
		{"truncated", write(whole[:len(whole)/2]), "no JSON"},
		{"an array", write([]byte("[]")), "no JSON"},
		{"null", write([]byte("null")), "of machine"},
		{"something follows", write(append(bytes.Clone(whole), "{}"...)), "follows"},
		{"too large", write(append(bytes.Clone(whole), bytes.Repeat([]byte(" "), maxFile)...)), "more than"},
		{"another machine", write(with(func(h *Handle) { h.VMID = "ffffffff" })), `of machine "ffffffff"`},
		{"negative pid", write(with(func(h *Handle) { h.PID = -1 })), "pid -1"},
		{"pid too large", write([]byte(`{"pid": 1e30}`)), "no JSON"},
		{"control character", write(with(func(h *Handle) { h.DMName = "a\nb" })), "no name"},
		{"long name", write(with(func(h *Handle) { h.TapDevice = strings.Repeat("a", maxText+1) })), "no name"},
		{"another boot", write(with(func(h *Handle) { h.BootID = "x" })), "another boot"},
		{"symlink", func(path string) error { return os.Symlink("/proc/self/environ", path) }, "symbolic link"},
		{"hard link", func(path string) error {
			return errors.Join(os.WriteFile(path+".other", whole, 0o600), os.Link(path+".other", path))
		}, "2 names"},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, "no regular file"},
		{"fifo", func(path string) error { return unix.Mkfifo(path, 0o600) }, "no regular file"},
		{"device", func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, 1<<8|5) }, "no regular file"},
		{"another user's", func(path string) error {
			if err := os.WriteFile(path, whole, 0o644); err != nil {
				return err
			}
			return os.Chown(path, 12345, 12345)
		}, "belongs to user 12345"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, path := newCache(t)
			c.known[id] = good
			if err := tt.plant(path); os.IsPermission(err) {
				t.Skip("takes root:", err)
			} else if err != nil {
				t.Fatal(err)
			}
			h, why := c.Load(id)
			if !strings.Contains(why, tt.why) || !strings.Contains(why, path) {
				t.Errorf("why: %q, want %q and the path", why, tt.why)
			}
			if want := (Handle{OtherBoot: tt.name == "another boot"}); h != want {
				t.Errorf("Load gives %+v, want %+v", h, want)
			}
			if h := c.Get(id); h != (Handle{}) {
				t.Errorf("still cached: %+v", h)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it was removed: %v", err)
			}
		})
	}
}

func TestLoadOfALaterBanger(t *testing.T) {
	boot, err := readBootID()
	if err != nil {
		t.Fatal(err)
	}
	c, path := newCache(t)
	data := fmt.Sprintf(`{"vm_id": %q, "boot_id": %q, "pid": 12, "cgroup": {"new": [1]}}`, id, boot)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, why := c.Load(id); h.PID != 12 || why != "" {
		t.Errorf("Load gives %+v, %q", h, why)
	}
}

func TestWithoutABootID(t *testing.T) {
	c, path := newCache(t)
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.bootID = func() (string, error) { return "", fs.ErrNotExist }
	if err := c.Update(id, func(*Handle) {}); err == nil {
		t.Error("Update succeeds")
	}
	if h, _ := c.Load(id); h != (Handle{}) {
		t.Errorf("Load gives %+v", h)
	}
}

func TestCacheConcurrently(t *testing.T) {
	c, _ := newCache(t)
	ids := []vm.ID{"00000001", "00000002", "00000003"}
	const times = 20
	var wg sync.WaitGroup
	for _, id := range ids {
		for range 3 {
			wg.Go(func() {
				for range times {
					if err := c.Update(id, func(h *Handle) { h.PID++ }); err != nil {
						t.Error(err)
					}
					c.Get(id)
					if h, why := c.Load(id); why != "" || h.VMID != id {
						t.Errorf("Load gives %+v, %q", h, why)
					}
				}
			})
		}
		wg.Go(func() {
			for range times {
				if err := c.Remove("0000000f"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		h, why := NewCache(c.pathOf).Load(id)
		if h.PID != 3*times || why != "" || h != c.Get(id) {
			t.Errorf("after %d updates: %+v, %q, cached %+v", 3*times, h, why, c.Get(id))
		}
	}
}

func FuzzHandles(f *testing.F) {
	const boot = "b"
	h := full()
	h.VMID, h.BootID = id, boot
	whole, err := encode(h)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range [][]byte{whole, whole[:40], nil, []byte("{}"), []byte("null"), []byte("[]"),
		[]byte(`{"vm_id":"0123abcd","boot_id":"b","pid":-1}`),
		[]byte(`{"vm_id":"0123abcd","boot_id":"b","pid":1,"PID":2,"tap_device":"\u0000"}`),
		[]byte(`{"vm_id":"0123abcd","boot_id":"b","dm_name":"\ud800\u2028<&>"}`),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decode(data, id, boot)
		if err != nil {
			return
		}
		if h.VMID != id || h.BootID != boot || h.PID < 0 || h.OtherBoot {
			t.Fatalf("accepted: %+v", h)
		}
		again, err := encode(h)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(again, id, boot); err != nil || got != h {
			t.Errorf("round trip of %+v: %+v, %v", h, got, err)
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	dir := b.TempDir()
	c := NewCache(func(vm.ID) string { return filepath.Join(dir, "handles.json") })
	for b.Loop() {
		if err := c.Update(id, func(h *Handle) { h.PID++ }); err != nil {
			b.Fatal(err)
		}
	}
}
