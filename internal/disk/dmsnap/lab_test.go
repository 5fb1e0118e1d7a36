//go:build lab

// These tests need root, loops and device-mapper, and change both: they are for
// the lab.

package dmsnap

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/errkind"
)

func TestDiskSuiteDmsnap(t *testing.T) {
	wantNothingLeft(t)
	disktest.RunLayers(t, func(*testing.T) disk.Layers { return testLayers() })
}

func TestTemplateSuiteDmsnap(t *testing.T) {
	wantNothingLeft(t)
	disktest.RunTemplates(t, func(*testing.T) disk.Layers { return testLayers() }, medium{})
}

// medium reads and writes block devices.
type medium struct{}

func (medium) Read(t *testing.T, d disk.Device) []byte {
	t.Helper()
	b, err := os.ReadFile(d.Path)
	must(t, err)
	return b
}

func (medium) Write(t *testing.T, d disk.Device, data []byte, at int64) {
	t.Helper()
	write(t, d.Path, data, at)
}

func testLayers() *Layers {
	ls := New(Options{Tag: "0a1b2c"})
	ls.busyLimit = 2 * time.Second
	return ls
}

// tool runs one of the programs that people look with.
func tool(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return string(out)
}

// inventory is everything on the host that a layer can leave.
func inventory(t testing.TB) string {
	t.Helper()
	return tool(t, "sh", "-c", "dmsetup ls; losetup --all --list --noheadings --output NAME,BACK-FILE; ls /dev/mapper")
}

// wantNothingLeft checks after the test that the host is as it was before.
func wantNothingLeft(t testing.TB) {
	t.Helper()
	before := inventory(t)
	t.Cleanup(func() {
		if after := inventory(t); after != before {
			t.Errorf("the host had\n%s\nand has\n%s", before, after)
		}
	})
}

// newLayer returns a layer of size bytes over an image of baseSize bytes that
// is not zero anywhere. It is deleted when the test ends.
func newLayer(t testing.TB, id string, baseSize, size int64) disk.Layer {
	t.Helper()
	base := filepath.Join(t.TempDir(), "root.ext4")
	if err := os.WriteFile(base, pattern(1, baseSize), 0o644); err != nil {
		t.Fatal(err)
	}
	l := disk.Layer{ID: id, Dir: machineDir(t), Base: base, BaseID: "sha256:1", SizeBytes: size, UID: disktest.UID()}
	t.Cleanup(func() { deleteLayer(t, l) })
	return l
}

// machineDir belongs to the VMM's user, as a machine's directory does.
func machineDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(disktest.UID()), int(disktest.UID())); err != nil {
		t.Fatal(err)
	}
	return dir
}

func deleteLayer(t testing.TB, l disk.Layer) {
	t.Helper()
	if err := testLayers().Delete(context.Background(), disk.Layer{ID: l.ID, Dir: l.Dir}); err != nil {
		t.Errorf("Delete = %v", err)
	}
}

// pattern is n bytes that differ with seed, and from sector to sector.
func pattern(seed byte, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed ^ byte(i) ^ byte(i>>9) ^ byte(i>>17) | 1
	}
	return b
}

func attach(t testing.TB, ls *Layers, l disk.Layer) disk.Device {
	t.Helper()
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatalf("Create = %v", err)
	}
	d, err := ls.Attach(t.Context(), l)
	if err != nil {
		t.Fatalf("Attach = %v", err)
	}
	return d
}

func detach(t testing.TB, ls *Layers, l disk.Layer) {
	t.Helper()
	if err := ls.Detach(t.Context(), disk.Layer{ID: l.ID, Dir: l.Dir}); err != nil {
		t.Fatalf("Detach = %v", err)
	}
}

func write(t testing.TB, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, not the %d that were written", path, len(got), len(want))
	}
}

func wantUsage(t testing.TB, ls *Layers, l disk.Layer) (used, total int64) {
	t.Helper()
	used, total, err := ls.Usage(t.Context(), l)
	if err != nil {
		t.Fatalf("Usage = %v", err)
	}
	return used, total
}

func TestAsToolsSeeIt(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, l)
	want := disk.Device{
		Path: filepath.Join(l.Dir, "root.dev"), Format: "raw", BaseLoop: d.BaseLoop, CowLoop: d.CowLoop,
		DMName: "banger-0a1b2c-a1", DMDev: "/dev/mapper/banger-0a1b2c-a1",
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("Attach = %+v, want %+v", d, want)
	}
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"losetup", "-nO", "RO,AUTOCLEAR,BACK-FILE", d.BaseLoop}, "1 1 " + l.Base},
		{[]string{"losetup", "-nO", "RO,AUTOCLEAR,DIO,BACK-FILE", d.CowLoop}, "0 1 1 " + ls.Path(l)},
		{[]string{"dmsetup", "info", "-c", "--noheadings", "-o", "open,readonly,suspended", d.DMName}, "0:Writeable:Active"},
		{[]string{"blockdev", "--getsize64", "--getss", d.Path}, "1048576 512"},
		{[]string{"sh", "-c", "dmsetup ls | wc -l"}, "1"},
	} {
		if got := strings.Join(strings.Fields(tool(t, tt.argv...)), " "); got != tt.want {
			t.Errorf("%q says %q, want %q", tt.argv, got, tt.want)
		}
	}
	if table := tool(t, "dmsetup", "table", d.DMName); !strings.HasSuffix(table, " PO 8\n") {
		t.Errorf("table = %q", table)
	}
	if used, total := wantUsage(t, ls, l); used <= 0 || total != cowSize(1<<20) {
		t.Errorf("Usage = %d of %d, want something of %d", used, total, cowSize(1<<20))
	}
}

// An unprivileged VMM may open the node in its directory, and nothing below it.
func TestWhatTheVMMMayOpen(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, l)
	for dir := filepath.Dir(l.Dir); dir != "/tmp"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	try := func(how, path string) error {
		c := exec.Command("dd", how+"="+path, "bs=512", "count=1", "conv=notrunc", "status=none")
		c.Stdin, c.SysProcAttr = nil, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: l.UID, Gid: l.UID}}
		out, err := c.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	for _, how := range []string{"if", "of"} {
		if err := try(how, d.Path); err != nil {
			t.Errorf("dd %s=%s: %v", how, d.Path, err)
		}
		for _, path := range []string{d.BaseLoop, d.CowLoop, d.DMDev, ls.Path(l)} {
			if try(how, path) == nil {
				t.Errorf("dd %s=%s succeeds as the VMM's user", how, path)
			}
		}
	}
}

func TestDataSurvives(t *testing.T) {
	for name, size := range map[string]int64{"as large as the image": 1 << 20, "larger": 3<<20 + 512} {
		t.Run(name, func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", 1<<20, size)
			image := pattern(1, 1<<20)
			want := append(bytes.Clone(image), make([]byte, size-1<<20)...)
			d := attach(t, ls, l)
			wantContent(t, d.Path, want)
			written := pattern(2, 10_000)
			at := size - 10_000
			write(t, d.Path, written, at)
			copy(want[at:], written)
			for range 3 {
				detach(t, ls, l)
				wantContent(t, attach(t, ls, l).Path, want)
			}
			wantContent(t, l.Base, image)
		})
	}
}

// Every chunk written takes the most that a COW can come to. The sizes stand
// around those at which a metadata area is full.
func TestCannotOverflow(t *testing.T) {
	for _, tt := range []struct{ base, size int64 }{
		{512, 512}, {255 << 12, 255 << 12}, {256 << 12, 256 << 12}, {256<<12 + 512, 256<<12 + 512},
		{257 << 12, 257 << 12}, {512 << 12, 512 << 12}, {1 << 20, 3<<20 + 512}, {1 << 20, 1024 << 12},
	} {
		t.Run(fmt.Sprintf("%d over %d", tt.size, tt.base), func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", tt.base, tt.size)
			d := attach(t, ls, l)
			want := pattern(3, tt.size)
			write(t, d.Path, want, 0)
			used, total := wantUsage(t, ls, l)
			if used < tt.size || used > total {
				t.Errorf("Usage = %d of %d", used, total)
			}
			for range 2 {
				detach(t, ls, l)
				wantContent(t, attach(t, ls, l).Path, want)
			}
			write(t, d.Path, pattern(4, tt.size), 0)
			wantContent(t, d.Path, pattern(4, tt.size))
		})
	}
}

func TestMachinesShareTheirBase(t *testing.T) {
	wantNothingLeft(t)
	ls, first := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	second := first
	second.ID, second.Dir = "b2", machineDir(t)
	t.Cleanup(func() { deleteLayer(t, second) })
	a, b := attach(t, ls, first), attach(t, testLayers(), second) // of another daemon
	if a.BaseLoop != b.BaseLoop || a.CowLoop == b.CowLoop {
		t.Errorf("two machines of one image have\n%+v\n%+v", a, b)
	}
	write(t, a.Path, pattern(2, 4096), 0)
	wantContent(t, b.Path, pattern(1, 1<<20))
	detach(t, ls, first)
	wantContent(t, b.Path, pattern(1, 1<<20))
	if again := attach(t, ls, first); again.BaseLoop != b.BaseLoop {
		t.Errorf("attached again it stands on %s, not %s", again.BaseLoop, b.BaseLoop)
	}
}

// A loop that clears itself is looked for by others just then.
func TestManyAtOnce(t *testing.T) {
	wantNothingLeft(t)
	proto := newLayer(t, "a0", 1<<20, 2<<20)
	var wg sync.WaitGroup
	for i := range 6 {
		l := proto
		l.ID, l.Dir = fmt.Sprintf("a%d", i), machineDir(t)
		ls := testLayers()
		wg.Go(func() {
			defer func() { deleteLayer(t, l) }()
			if err := ls.Create(t.Context(), l); err != nil {
				t.Errorf("Create = %v", err)
			}
			for range 15 {
				d, err := ls.Attach(t.Context(), l)
				if err != nil {
					t.Errorf("Attach = %v", err)
					return
				}
				b := make([]byte, 4096)
				f, err := os.Open(d.Path)
				if err == nil {
					_, err = f.ReadAt(b, 0)
					f.Close()
				}
				if err != nil || !bytes.Equal(b, pattern(1, 4096)) {
					t.Errorf("read of %s = %v, or another content", d.Path, err)
				}
				if err := ls.Detach(t.Context(), l); err != nil {
					t.Errorf("Detach = %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// The image of a running machine is built anew, or deleted.
func TestBaseReplaced(t *testing.T) {
	wantNothingLeft(t)
	ls, old := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, old)
	if err := os.Remove(old.Base); err != nil {
		t.Fatal(err)
	}
	wantContent(t, d.Path, pattern(1, 1<<20))
	if err := os.WriteFile(old.Base, pattern(5, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	fresh := old
	fresh.ID, fresh.Dir, fresh.BaseID = "b2", machineDir(t), "sha256:2"
	t.Cleanup(func() { deleteLayer(t, fresh) })
	if other := attach(t, ls, fresh); other.BaseLoop == d.BaseLoop {
		t.Errorf("another image stands on the same loop: %+v", other)
	} else {
		wantContent(t, other.Path, pattern(5, 1<<20))
	}
	now := old
	now.BaseID = "sha256:2"
	if d, err := ls.Attach(t.Context(), now); err == nil {
		t.Errorf("Attach over another image = %+v", d)
	}
	wantContent(t, d.Path, pattern(1, 1<<20)) // it is still attached
}

// The file that a loop stands on was changed in place: nobody may do that, but
// the loop must not be taken for the file as it is now.
func TestBaseGrown(t *testing.T) {
	wantNothingLeft(t)
	ls, small := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, small)
	if err := os.Truncate(small.Base, 2<<20); err != nil {
		t.Fatal(err)
	}
	large := small
	large.ID, large.Dir, large.SizeBytes = "b2", machineDir(t), 2<<20
	t.Cleanup(func() { deleteLayer(t, large) })
	other := attach(t, ls, large)
	if other.BaseLoop == d.BaseLoop {
		t.Errorf("both stand on %s", d.BaseLoop)
	}
	wantContent(t, other.Path, append(pattern(1, 1<<20), make([]byte, 1<<20)...))
}

func TestBadInput(t *testing.T) {
	zero := func(at int64) func(t *testing.T, l *disk.Layer) {
		return func(t *testing.T, l *disk.Layer) { write(t, testLayers().Path(*l), make([]byte, 4), at) }
	}
	record := func(l *disk.Layer) string { return filepath.Join(l.Dir, recordName) }
	for name, tt := range map[string]struct {
		want  string
		spoil func(t *testing.T, l *disk.Layer)
	}{
		"no COW": {"not there", func(t *testing.T, l *disk.Layer) { must(t, os.Remove(testLayers().Path(*l))) }},
		"truncated": {"bytes", func(t *testing.T, l *disk.Layer) {
			must(t, os.Truncate(testLayers().Path(*l), 8192))
		}},
		"empty":             {"bytes", func(t *testing.T, l *disk.Layer) { must(t, os.Truncate(testLayers().Path(*l), 0)) }},
		"no magic":          {"no COW", zero(0)},
		"marked invalid":    {"invalid", zero(4)},
		"no version":        {"version", zero(8)},
		"other chunks":      {"chunks", zero(12)},
		"no record":         {"not known", func(t *testing.T, l *disk.Layer) { must(t, os.Remove(record(l))) }},
		"garbage record":    {"cannot be read", func(t *testing.T, l *disk.Layer) { must(t, os.WriteFile(record(l), []byte("{"), 0o600)) }},
		"another's record":  {"machine", func(t *testing.T, l *disk.Layer) { l.ID = "b2" }},
		"image of other id": {"sha256:1", func(t *testing.T, l *disk.Layer) { l.BaseID = "sha256:2" }},
		"image elsewhere": {"not over", func(t *testing.T, l *disk.Layer) {
			must(t, os.Link(l.Base, l.Base+".2"))
			l.Base, l.BaseID = l.Base+".2", ""
		}},
		"image of other size": {"has 2097152", func(t *testing.T, l *disk.Layer) { must(t, os.Truncate(l.Base, 2<<20)) }},
		"image gone":          {"no such file", func(t *testing.T, l *disk.Layer) { must(t, os.Remove(l.Base)) }},
		"COW is a link": {"symbolic link", func(t *testing.T, l *disk.Layer) {
			path := testLayers().Path(*l)
			must(t, os.Rename(path, path+".away"))
			t.Cleanup(func() { os.Remove(path + ".away") })
			must(t, os.Symlink(path+".away", path))
		}},
		"COW is the VMM user's": {"user", func(t *testing.T, l *disk.Layer) {
			must(t, os.Chown(testLayers().Path(*l), int(l.UID), int(l.UID)))
		}},
		"record is the VMM user's": {"user", func(t *testing.T, l *disk.Layer) {
			must(t, os.Chown(record(l), int(l.UID), int(l.UID)))
		}},
		"COW is on a loop": {"in use", func(t *testing.T, l *disk.Layer) {
			lp := strings.TrimSpace(tool(t, "losetup", "--find", "--show", testLayers().Path(*l)))
			t.Cleanup(func() { tool(t, "losetup", "-d", lp) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
			write(t, attach(t, ls, l).Path, pattern(2, 8192), 0)
			detach(t, ls, l)
			tt.spoil(t, &l)
			before := inventory(t) + tool(t, "ls", "-lA", l.Dir)
			d, err := ls.Attach(t.Context(), l)
			if err == nil {
				t.Fatalf("Attach = %+v", d)
			}
			text := err.Error()
			if strings.Contains(text, "\n") || !strings.Contains(text, ls.Path(l)) || !strings.Contains(text, tt.want) {
				t.Errorf("Attach = %v, want one line with %s and %q in it", err, ls.Path(l), tt.want)
			}
			if len(errkind.Hints(err)) == 0 && name != "image gone" {
				t.Errorf("Attach = %v, and no hint", err)
			}
			for _, h := range errkind.Hints(err) {
				if strings.HasPrefix(h, "ls ") {
					tool(t, "sh", "-c", h)
				}
			}
			if after := inventory(t) + tool(t, "ls", "-lA", l.Dir); after != before {
				t.Errorf("Attach left\n%s\nof\n%s", after, before)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNodev(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	tool(t, "mount", "-t", "tmpfs", "-o", "nodev", "none", l.Dir)
	t.Cleanup(func() { tool(t, "umount", l.Dir) })
	must(t, ls.Create(t.Context(), l))
	d, err := ls.Attach(t.Context(), l)
	hints := errkind.Hints(err)
	if errkind.Of(err) != errkind.Host || len(hints) != 1 {
		t.Fatalf("Attach = %+v, %v with hints %q", d, err, hints)
	}
	tool(t, "sh", "-c", hints[0])
	attach(t, ls, l)
	deleteLayer(t, l)
}

// What a dead process, or a host that went down, left of a name.
func TestNamesLeftByCrash(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, l disk.Layer, name string){
		"without a table": func(t *testing.T, _ disk.Layer, name string) {
			tool(t, "dmsetup", "create", name, "--notable", "--noudevsync")
		},
		"an origin alone": func(t *testing.T, _ disk.Layer, name string) {
			tool(t, "dmsetup", "create", name+"-origin", "--noudevsync", "--table", "0 8 zero")
		},
		"something else": func(t *testing.T, _ disk.Layer, name string) {
			tool(t, "dmsetup", "create", name, "--noudevsync", "--table", "0 8 zero")
		},
		"a node of another device": func(t *testing.T, l disk.Layer, _ string) {
			path := filepath.Join(l.Dir, nodeName)
			must(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(253, 77))))
			must(t, os.Chown(path, int(l.UID), int(l.UID)))
		},
		"a directory for a node": func(t *testing.T, l disk.Layer, _ string) {
			must(t, os.MkdirAll(filepath.Join(l.Dir, nodeName, "deep"), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", 1<<20, 2<<20)
			must(t, ls.Create(t.Context(), l))
			leave(t, l, Name(ls.tag, l.ID))
			want := append(pattern(1, 1<<20), make([]byte, 1<<20)...)
			wantContent(t, attach(t, ls, l).Path, want)
			detach(t, ls, l)
			leave(t, l, Name(ls.tag, l.ID))
			detach(t, ls, l)
		})
	}
}

// A node that its user gave another name opens nothing any more: the number may
// soon be that of somebody else's disk.
func TestNodeIsTakenAway(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, l)
	elsewhere := filepath.Join(t.TempDir(), "mine")
	must(t, os.Link(d.Path, elsewhere))
	must(t, os.Rename(d.Path, filepath.Join(l.Dir, "hidden")))
	detach(t, ls, l)
	var st unix.Stat_t
	must(t, unix.Lstat(elsewhere, &st))
	if st.Uid != 0 || st.Mode&0o777 != 0 {
		t.Errorf("the node is user %d's, mode %o", st.Uid, st.Mode)
	}
	if es, err := os.ReadDir(l.Dir); err != nil || len(es) != 2 {
		t.Errorf("Detach left %v (%v)", es, err)
	}
}

// holder starts a process of user uid that has the device open.
func holder(t *testing.T, d disk.Device, uid uint32) *exec.Cmd {
	t.Helper()
	f, err := os.Open(d.Path)
	must(t, err)
	defer f.Close()
	c := exec.Command("sleep", "1000")
	c.Stdin, c.SysProcAttr = f, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	must(t, c.Start())
	return c
}

// A VMM that recovery could not find any more.
func TestDetachEndsTheVMM(t *testing.T) {
	for name, renamed := range map[string]bool{"known by the node": false, "known by the directory": true} {
		t.Run(name, func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
			d := attach(t, ls, l)
			c := holder(t, d, l.UID)
			if renamed {
				must(t, os.Remove(d.Path))
			} else {
				must(t, os.Chown(l.Dir, 0, 0))
			}
			began := time.Now()
			detach(t, ls, l)
			t.Logf("Detach took %s", time.Since(began).Round(time.Millisecond))
			if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("the process ended with %v", err)
			}
		})
	}
}

func TestDetachWaitsForOthers(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 2<<20)
	c := holder(t, attach(t, ls, l), 12345)
	err := ls.Detach(t.Context(), l)
	if want := fmt.Sprintf("process %d (sleep)", c.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Detach = %v, want %q in it", err, want)
	}
	if err := ls.Delete(t.Context(), l); err == nil {
		t.Error("Delete of a disk in use succeeded")
	}
	if _, err := os.Stat(ls.Path(l)); err != nil {
		t.Errorf("Delete of a disk in use: %v", err)
	}
	time.AfterFunc(ls.busyLimit/4, func() { c.Process.Kill(); c.Wait() })
	detach(t, ls, l)
}

// Somebody looks at the loop: it clears itself when he has done.
func TestDetachNamesWhoHasTheLoop(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, l)
	f, err := os.Open(d.CowLoop)
	must(t, err)
	err = ls.Detach(t.Context(), l)
	if want := fmt.Sprintf("process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Detach = %v, want %q in it", err, want)
	}
	must(t, f.Close())
	detach(t, ls, l)
}

// The COW was deleted under the machine, by hand.
func TestDetachWithoutCow(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	d := attach(t, ls, l)
	f, err := os.Open(d.CowLoop)
	must(t, err)
	must(t, os.Remove(ls.Path(l)))
	if err := ls.Detach(t.Context(), l); err == nil {
		t.Error("Detach with the loop in use succeeded")
	}
	must(t, f.Close())
	detach(t, ls, l)
}

// A host whose file system fills up, or that lost a disk: writes to the COW
// fail, and the kernel gives the snapshot up for good.
func TestUsageOfInvalid(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 4<<20, 4<<20)
	tool(t, "mount", "-t", "tmpfs", "-o", "size=1m", "none", l.Dir)
	t.Cleanup(func() { tool(t, "umount", l.Dir) })
	d := attach(t, ls, l)
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(pattern(2, 4<<20), 0)
	if serr := f.Sync(); err == nil && serr == nil {
		t.Error("4 MiB were written to a file system of 1 MiB")
	}
	f.Close()
	if used, total, err := ls.Usage(t.Context(), l); err == nil {
		t.Errorf("Usage = %d of %d", used, total)
	} else {
		t.Log(err)
	}
	detach(t, ls, l)
	if d, err := ls.Attach(t.Context(), l); err == nil {
		t.Errorf("Attach of an invalid snapshot = %+v", d)
	} else {
		t.Log(err)
	}
	deleteLayer(t, l)
}

func TestUsageGrows(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 4<<20, 4<<20)
	if _, _, err := ls.Usage(t.Context(), l); errkind.Of(err) != errkind.Conflict {
		t.Errorf("Usage of what is not attached = %v", err)
	}
	d := attach(t, ls, l)
	before, _ := wantUsage(t, ls, l)
	write(t, d.Path, pattern(2, 1<<20), 0)
	after, _ := wantUsage(t, ls, l)
	if after-before < 1<<20 || after-before > 1<<20+8192 {
		t.Errorf("writing 1 MiB made it grow from %d to %d", before, after)
	}
}

func TestCheck(t *testing.T) {
	if err := testLayers().Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	must(t, os.Rename(loopControl, loopControl+".away"))
	err := testLayers().Check(t.Context())
	must(t, os.Rename(loopControl+".away", loopControl))
	if errkind.Of(err) != errkind.Host || len(errkind.Hints(err)) != 1 {
		t.Errorf("Check without %s = %v, hints %q", loopControl, err, errkind.Hints(err))
	}
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	must(t, ls.Create(t.Context(), l))
	must(t, os.Rename(controlPath, controlPath+".away"))
	err = ls.Check(t.Context())
	_, aerr := ls.Attach(t.Context(), l)
	derr := ls.Detach(t.Context(), l)
	must(t, os.Rename(controlPath+".away", controlPath))
	if errkind.Of(err) != errkind.Host || len(errkind.Hints(err)) != 1 {
		t.Errorf("Check without %s = %v, hints %q", controlPath, err, errkind.Hints(err))
	}
	if errkind.Of(aerr) != errkind.Host || len(errkind.Hints(aerr)) != 1 {
		t.Errorf("Attach without %s = %v, hints %q", controlPath, aerr, errkind.Hints(aerr))
	}
	if derr != nil {
		t.Errorf("Detach without %s = %v", controlPath, derr)
	}
}

// The loops that a host began with are others': the kernel makes more.
func TestLoopsAreOthers(t *testing.T) {
	wantNothingLeft(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	for range 20 { // Debian's kernel begins with 8
		lp := strings.TrimSpace(tool(t, "losetup", "--find", "--show", file))
		t.Cleanup(func() { tool(t, "losetup", "--detach", lp) })
	}
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	wantContent(t, attach(t, ls, l).Path, pattern(1, 1<<20))
	deleteLayer(t, l)
}

// In a container the kernel has loops of which there are no nodes.
func TestLoopWithoutNode(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	must(t, ls.Create(t.Context(), l))
	n, err := freeLoop()
	must(t, err)
	must(t, os.Remove(fmt.Sprint("/dev/loop", n)))
	d, err := ls.Attach(t.Context(), l)
	hints := errkind.Hints(err)
	if errkind.Of(err) != errkind.Host || len(hints) != 1 || strings.Contains(err.Error(), "\n") {
		t.Fatalf("Attach = %+v, %v with hints %q", d, err, hints)
	}
	t.Log(err)
	tool(t, "sh", "-c", hints[0])
	wantContent(t, attach(t, ls, l).Path, pattern(1, 1<<20))
	deleteLayer(t, l)
}

// The kernel makes up to 1,048,576 loops, whatever max_loop says, and answers
// EINVAL then: its devices' numbers are used up. That takes more than a test has.
func TestLoopsExhausted(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 1<<20)
	must(t, ls.Create(t.Context(), l))
	left := 1 // enough for the base
	ls.freeLoop = func() (int, error) {
		if left == 0 {
			return 0, noLoop(unix.EINVAL)
		}
		left--
		return freeLoop()
	}
	d, err := ls.Attach(t.Context(), l)
	if errkind.Of(err) != errkind.Host || len(errkind.Hints(err)) != 1 || strings.Contains(err.Error(), "\n") {
		t.Errorf("Attach = %+v, %v, hints %q", d, err, errkind.Hints(err))
	}
}
