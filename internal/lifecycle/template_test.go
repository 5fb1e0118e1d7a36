package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/template"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// newWarm is a life in which there are templates.
func newWarm(t *testing.T) *life {
	t.Helper()
	l := newLife(t)
	l.templates = true
	l.restart()
	return l
}

// small is a machine whose pretend memory is read quickly.
var small = vm.Spec{MemoryBytes: 64 << 20}

func (l *life) createSmall(name string, s vm.Spec) vm.VM {
	l.t.Helper()
	v, err := l.Create(context.Background(), lifecycle.Request{Name: name, Spec: s}, nobody)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

// makeTemplate makes the template of small machines.
func (l *life) makeTemplate() template.Template {
	l.t.Helper()
	first := l.createSmall("first", small)
	t, err := l.MakeTemplate(context.Background(), first.Spec, nobody)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.Delete(context.Background(), first.ID); err != nil {
		l.t.Fatal(err)
	}
	return t
}

// nothingLeft checks that there is no machine, and nothing of one.
func (l *life) nothingLeft(after string) {
	l.t.Helper()
	vms, err := l.List(context.Background())
	dirs, derr := os.ReadDir(l.paths.VMs())
	if err != nil || derr != nil || len(vms) > 0 || len(dirs) > 0 {
		l.t.Errorf("%s: there are %v, %v; %v, %v", after, vms, err, dirs, derr)
	}
	if ps, links := l.w.VMM.Processes(), l.w.Net.Links(); len(ps)+len(links) > 0 {
		l.t.Errorf("%s: there are processes %v, links %v", after, ps, links)
	}
	staged, err := os.ReadDir(filepath.Join(l.paths.Templates(), ".staging"))
	if err != nil || len(staged) > 0 {
		l.t.Errorf("%s: staged is %v, %v", after, staged, err)
	}
}

// A machine of which there is a template goes on from it, and is itself before
// anybody can use it.
func TestRestore(t *testing.T) {
	l := newWarm(t)
	x := l.makeTemplate()
	l.nothingLeft("after a template was made")
	web := l.createSmall("web", small)
	if web.Template != x.ID {
		t.Fatalf("it stands on template %q, want %s", web.Template, x.ID)
	}
	mustStart(t, l, web)
	did := l.w.Identities.Calls(string(web.ID))
	if len(did) == 0 || did[0] != "seed" || !slices.Contains(did, "hostname web") || !slices.Contains(did, "keep web") {
		t.Errorf("it was told %q", did)
	}
	s, _ := l.w.VMM.Spec(string(web.ID))
	if s.Restore == nil || s.Restore.RAM != x.RAM() || s.FreezeTo != nil || s.Idle {
		t.Errorf("it was launched with %+v", s)
	}
	// What greets it is its own from now on: the next daemon knows nothing else.
	l.restart()
	if _, err := l.Agent(context.Background(), web.ID); err != nil {
		t.Error(err)
	}
	// Later starts are boots, on the same disk.
	if _, err := l.Stop(context.Background(), web.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	mustStart(t, l, web)
	if s, _ := l.w.VMM.Spec(string(web.ID)); s.Restore != nil || s.Initrd == "" {
		t.Errorf("its second start: %+v", s)
	}
	if got := l.record(web.ID); got.Template != x.ID {
		t.Errorf("its disk stands on %q", got.Template)
	}
}

// What is not as the template was boots.
func TestTemplateDoesNotFit(t *testing.T) {
	l := newWarm(t)
	l.makeTemplate()
	for name, s := range map[string]vm.Spec{
		"memory":  {MemoryBytes: 65 << 20},
		"cpus":    {MemoryBytes: 64 << 20, VCPUs: 2},
		"image":   {MemoryBytes: 64 << 20, Image: "other"},
		"network": {MemoryBytes: 64 << 20, Network: network.None},
		"disk":    {MemoryBytes: 64 << 20, DiskBytes: 99 << 20}, // smaller
	} {
		if v := l.createSmall(name, s); v.Template != "" {
			t.Errorf("another %s: it stands on %s", name, v.Template)
		}
	}
	fits := l.createSmall("fits", vm.Spec{MemoryBytes: 64 << 20, DiskBytes: 99 << 30})
	if fits.Template == "" {
		t.Error("a larger work disk: it stands on no template")
	}
	// One that is changed before it first starts boots, on a disk without it.
	if _, err := l.Set(context.Background(), fits.ID, vm.Size{MemoryBytes: 128 << 20}); err != nil {
		t.Fatal(err)
	}
	mustStart(t, l, fits)
	if s, _ := l.w.VMM.Spec(string(fits.ID)); s.Restore != nil || l.record(fits.ID).Template != "" {
		t.Errorf("it was changed, and stands on %q, restored: %t", l.record(fits.ID).Template, s.Restore != nil)
	}
}

// A machine goes on with the disk that its template's guest has mounted, just as it
// was then, whatever happened before its first start succeeds; one that boots after
// all has an empty one.
func TestRestoreWorkDisk(t *testing.T) {
	const mark, junk = "what the guest has mounted", "what an earlier start wrote...."
	l := newWarm(t)
	x := l.makeTemplate()
	put := func(path, text string) {
		t.Helper()
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(text), 0)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	put(x.Work(), mark)
	path := func(v vm.VM) string { return filepath.Join(l.paths.VMs(), string(v.ID), "work.ext4") }
	holds := func(doing string, v vm.VM, want string, size int64) {
		t.Helper()
		f, err := os.Open(path(v))
		if err != nil {
			t.Fatalf("%s: %v", doing, err)
		}
		defer f.Close()
		got := make([]byte, len(mark))
		_, err = f.ReadAt(got, 0)
		fi, serr := f.Stat()
		if err != nil || serr != nil || strings.TrimRight(string(got), "\x00") != want || fi.Size() != size {
			t.Errorf("%s: the disk holds %q (%v, %v), %d bytes, want %q, %d", doing, got, err, serr, fi.Size(), want, size)
		}
	}
	web := l.createSmall("web", small)
	holds("created", web, mark, web.Spec.DiskBytes)
	bigger := web.Spec.DiskBytes + 1<<30
	if _, err := l.Set(context.Background(), web.ID, vm.Size{DiskBytes: bigger}); err != nil {
		t.Fatal(err)
	}
	holds("grown", web, mark, bigger)
	put(path(web), junk)
	l.crash("before guest", func() { _, _ = l.Start(context.Background(), web.ID, nobody) })
	l.restart()
	mustStart(t, l, web)
	holds("restored by a second start", web, mark, bigger)
	if did := l.w.Identities.Calls(string(web.ID)); !slices.Contains(did, "grow /root") {
		t.Errorf("its guest did %q", did)
	}

	cold := l.createSmall("cold", small)
	if err := os.WriteFile(x.State(), []byte("damaged"), 0o444); err != nil {
		t.Fatal(err)
	}
	mustStart(t, l, cold)
	holds("booted after all", cold, "", cold.Spec.DiskBytes)
}

// A template that is damaged is set aside, and who asked for a machine gets one,
// with one line that says so.
func TestRestoreDamaged(t *testing.T) {
	for name, spoil := range map[string]func(template.Template) error{
		"state": func(x template.Template) error { return os.WriteFile(x.State(), []byte("not what it was"), 0o444) },
		"short": func(x template.Template) error { return os.Truncate(x.RAM(), 1<<20) },
		// Only the VMM, or the guest, finds that out.
		"guest": func(x template.Template) error { return os.Truncate(x.RAM(), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newWarm(t)
			x := l.makeTemplate()
			web := l.createSmall("web", small)
			if err := spoil(x); err != nil {
				t.Fatal(err)
			}
			if name == "guest" {
				if err := os.Truncate(x.RAM(), 64<<20); err != nil {
					t.Fatal(err)
				}
			}
			var said []string
			got, err := l.Start(context.Background(), web.ID, func(stage, detail string, _, _ int64) {
				if stage == lifecycle.Notice {
					said = append(said, detail)
				}
			})
			if err != nil || got.State != vm.Running || got.Template != "" {
				t.Fatalf("Start = %s, on template %q, %v", got.State, got.Template, err)
			}
			if len(said) != 1 || !strings.Contains(said[0], "cannot be used, so web boots: ") {
				t.Errorf("said %q", said)
			}
			l.agrees("after a damaged template", web)
			if v := l.createSmall("next", small); v.Template != "" {
				t.Error("the next machine stands on it")
			}
		})
	}
}

// What the host could not do is not the template's fault: the machine boots, and
// the next one is restored.
func TestRestoreFailsOfHost(t *testing.T) {
	l := newWarm(t)
	x := l.makeTemplate()
	for _, why := range []error{syscall.ENOSPC, errkind.New(errkind.Host, "no memory")} {
		web := l.createSmall("web", small)
		l.w.SetFail(once("before launch", func() error { return why }))
		var said []string
		got, err := l.Start(context.Background(), web.ID, func(stage, detail string, _, _ int64) {
			if stage == lifecycle.Notice {
				said = append(said, detail)
			}
		})
		l.w.SetFail(nil)
		if err != nil || got.State != vm.Running || got.Template != "" {
			t.Errorf("%v: Start = %s, on template %q, %v", why, got.State, got.Template, err)
		}
		if len(said) != 1 || !strings.Contains(said[0], "web could not be restored, so it boots: ") {
			t.Errorf("%v: said %q", why, said)
		}
		if _, err := l.Delete(context.Background(), web.ID); err != nil {
			t.Fatal(err)
		}
	}
	if v := l.createSmall("next", small); v.Template != x.ID {
		t.Errorf("the next machine stands on template %q", v.Template)
	}
}

// One template is made of a kind; nobody can use the machine that becomes it.
func TestMakeTemplateOnce(t *testing.T) {
	l := newWarm(t)
	l.makeTemplate()
	v := l.createSmall("web", small)
	if _, err := l.MakeTemplate(context.Background(), v.Spec, nobody); errkind.Of(err) != errkind.Conflict {
		t.Errorf("MakeTemplate again = %v", err)
	}
	l.w.Host.SetSpare(2 << 30)
	other := v.Spec
	other.Image = "other"
	if _, err := l.MakeTemplate(context.Background(), other, nobody); errkind.Of(err) != errkind.Host {
		t.Errorf("MakeTemplate on a full disk = %v", err)
	}
}

// Wherever the daemon dies while it makes a template, or whatever fails, there is
// a whole one or none, and nothing is left.
func TestMakeTemplateFailsAtEveryPoint(t *testing.T) {
	spec := small
	spec.Driver, spec.VCPUs, spec.Image, spec.Kernel = "fake", 1, "tiny", "fake"
	spec.DiskBytes, spec.Network = 64<<20, network.NAT
	l := newWarm(t)
	l.createSmall("net", small) // there is a subnet
	points := l.points(func() {
		if _, err := l.MakeTemplate(context.Background(), spec, nobody); err != nil {
			t.Fatal(err)
		}
	})
	if len(points) < 20 {
		t.Fatalf("it passes only %q", points)
	}
	for _, p := range points {
		for _, how := range []string{"dies", "fails"} {
			t.Run(p+"/"+how, func(t *testing.T) {
				t.Parallel()
				l := newWarm(t)
				net := l.createSmall("net", small)
				if _, err := l.Delete(context.Background(), net.ID); err != nil {
					t.Fatal(err)
				}
				var err error
				if how == "dies" {
					l.crash(p, func() { _, err = l.MakeTemplate(context.Background(), spec, nobody) })
					l.restart()
				} else {
					l.w.SetFail(once(p, func() error { return errBoom }))
					_, err = l.MakeTemplate(context.Background(), spec, nobody)
					l.w.SetFail(nil)
				}
				if err != nil && !errors.Is(err, errBoom) && !strings.HasSuffix(p, " find") {
					t.Errorf("it failed with %v", err)
				}
				l.restart() // what could not be taken down is by the next daemon
				l.nothingLeft("after " + p)
				v := l.createSmall("web", small)
				mustStart(t, l, v)
			})
		}
	}
}

// makeTemplateAnd makes the template of small machines, and does something the
// first time that a point is passed.
func (l *life) makeTemplateAnd(ctx context.Context, point string, do func()) error {
	l.t.Helper()
	v := l.createSmall("first", small)
	if _, err := l.Delete(context.Background(), v.ID); err != nil {
		l.t.Fatal(err)
	}
	passed := false
	l.w.SetFail(once(point, func() error { passed = true; do(); return nil }))
	_, err := l.MakeTemplate(ctx, v.Spec, nobody)
	l.w.SetFail(nil)
	if !passed {
		l.t.Fatalf("it never passed %q", point)
	}
	return err
}

// What looks whether there is room lets no guest go on that is being frozen.
func TestFrozenStaysStill(t *testing.T) {
	l := newWarm(t)
	err := l.makeTemplateAnd(context.Background(), "before freeze", func() {
		for range 50 {
			l.CheckRoom()
			for _, p := range l.w.VMM.Processes() {
				if st := l.w.VMM.Status(p); st != vmm.Paused {
					t.Errorf("it is %s while it is frozen", st)
					return
				}
			}
			<-time.After(time.Millisecond)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A template is not made where the disk is nearly full: what there is of it goes,
// before machines have to stand.
func TestMakeTemplateGivesUp(t *testing.T) {
	l := newWarm(t)
	err := l.makeTemplateAnd(context.Background(), "before freeze", func() {
		l.w.Host.SetSpare(100 << 20)
		l.CheckRoom()
	})
	if errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), "nearly full") {
		t.Errorf("MakeTemplate = %v", err)
	}
	l.w.Host.SetSpare(1 << 40)
	l.nothingLeft("when it was given up")
	l.makeTemplate()
}

// A daemon that stops takes the machine down that was to become a template: it
// is of no use to the next.
func TestMakeTemplateWhileStopping(t *testing.T) {
	l := newWarm(t)
	closed := make(chan struct{})
	err := l.makeTemplateAnd(context.Background(), "before guest", func() {
		go func() { l.Manager.Close(); close(closed) }()
		<-l.Stopping()
	})
	<-closed
	if err == nil {
		t.Error("MakeTemplate succeeded")
	}
	if ps := l.w.VMM.Processes(); len(ps) > 0 {
		t.Errorf("there are processes %v", ps)
	}
}

// Whenever it is cancelled, nothing is left, also of a machine that has not begun
// to start.
func TestMakeTemplateCancelled(t *testing.T) {
	for _, point := range []string{"before check", "after work.create", "before disk.attach", "before guest", "after freeze"} {
		l := newWarm(t)
		ctx, cancel := context.WithCancel(context.Background())
		if err := l.makeTemplateAnd(ctx, point, cancel); err == nil {
			t.Errorf("%s: MakeTemplate succeeded", point)
		}
		l.nothingLeft(point)
	}
}

// Wherever the daemon dies while it restores a machine, record and host agree,
// and the machine can be started.
func TestRestoreDies(t *testing.T) {
	l := newWarm(t)
	l.makeTemplate()
	v := l.createSmall("web", small)
	points := l.points(func() { mustStart(t, l, v) })
	if len(points) < 10 {
		t.Fatalf("restoring passes only %q", points)
	}
	for _, p := range points {
		t.Run(p, func(t *testing.T) {
			t.Parallel()
			l := newWarm(t)
			l.makeTemplate()
			v := l.createSmall("web", small)
			l.crash(p, func() { _, _ = l.Start(context.Background(), v.ID, nobody) }) // it never returns
			l.restart()
			if got := l.agrees("after a crash", v); got.State == vm.Running && !slices.Contains(l.w.Identities.Calls(string(v.ID)), "keep web") {
				t.Errorf("it runs without an identity")
			}
			if l.record(v.ID).State != vm.Running {
				mustStart(t, l, v)
			}
			l.agrees("in the end", v)
		})
	}
}
