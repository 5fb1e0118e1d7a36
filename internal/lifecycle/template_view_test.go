package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/config"
	"banger/internal/daemon/daemontest"
	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/template"
	"banger/internal/template/templatefs"
	"banger/internal/vm"
)

// template makes one of an image.
func (l *life) template(image string) template.Template {
	l.t.Helper()
	lib, err := templatefs.Open(l.paths.Templates())
	if err != nil {
		l.t.Fatal(err)
	}
	s, err := lib.Stage(context.Background(), template.Key{
		Image: image, ImageID: "a0", Kernel: "fake", KernelID: "b0", Agent: "c0", Driver: "fake", VMM: "fake 1.0",
		CPU: "a processor", VCPUs: 1, MemoryBytes: 1 << 20, RootBytes: 1 << 30, WorkBytes: 1 << 30, Network: true,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, name := range []string{template.RAMName, template.StateName, template.RootName, template.WorkName} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name), []byte(name), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	t, err := s.Publish(context.Background(), template.Template{Token: strings.Repeat("0", 32), BootID: "b"})
	if err != nil {
		l.t.Fatal(err)
	}
	return t
}

// onTemplate records a machine whose root disk stands on a template.
func (l *life) onTemplate(t template.Template, v vm.VM) vm.VM {
	l.t.Helper()
	v.ID, v.Template, v.Token = vm.NewID(), t.ID, strings.Repeat("1", 32)
	v.Spec = vm.Spec{Image: "tiny", ImageID: "a0", Kernel: "fake", Driver: "fake", VCPUs: 1, MemoryBytes: 1 << 20, DiskBytes: 1 << 20, Network: "none"}
	got, err := l.store.Create(context.Background(), v)
	if err != nil {
		l.t.Fatal(err)
	}
	return got
}

// wantTemplates checks which templates there are.
func (l *life) wantTemplates(after string, want ...template.Template) {
	l.t.Helper()
	all, err := l.Templates(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	var got, ids []string
	for _, t := range all {
		got = append(got, t.ID)
	}
	for _, t := range want {
		ids = append(ids, t.ID)
	}
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		l.t.Errorf("%s there are %v, want %v", after, got, ids)
	}
}

// overwrite damages a file without changing its size.
func overwrite(t *testing.T, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = os.WriteFile(path, make([]byte, fi.Size()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A template on which a user's machine stands stays, whatever the machine's state.
func TestTemplateInUse(t *testing.T) {
	all := template.PruneOptions{UnusedFor: 1, MaxBytes: 1}
	for name, v := range map[string]vm.VM{
		"created": {}, "stopped": {State: vm.Stopped},
		"ephemeral": {Ephemeral: true}, "faulty": {State: vm.Faulty},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			ctx := context.Background()
			x := l.template("tiny")
			v.Name = "web"
			l.onTemplate(x, v)
			v.Name = "db"
			l.onTemplate(x, v)
			_, err := l.DeleteTemplate(ctx, x.ID)
			if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), `in use by machine "db"`) || !slices.Equal(errkind.Hints(err), []string{"banger vm delete db"}) {
				t.Errorf("DeleteTemplate = %v, hints %q", err, errkind.Hints(err))
			}
			if gone, err := l.PruneTemplates(ctx, all); len(gone) > 0 || err != nil {
				t.Errorf("PruneTemplates = %v, %v", gone, err)
			}
			overwrite(t, x.RAM())
			if _, err := l.VerifyTemplate(ctx, x.ID); !errors.Is(err, template.ErrDamaged) {
				t.Errorf("VerifyTemplate = %v", err)
			}
			l.w.Host.SetSpare(1)
			l.PruneTemplatesAsConfigured(ctx)
			got, err := l.Template(ctx, x.ID)
			if err != nil || got.Damaged == "" || !slices.Equal(got.Machines, []string{"db", "web"}) {
				t.Errorf("Template = %+v, %v", got, err)
			}
		})
	}
}

// What no machine stands on goes when it is asked for.
func TestDeleteTemplate(t *testing.T) {
	l := newLife(t)
	ctx := context.Background()
	one, two := l.template("one"), l.template("two")
	v := l.onTemplate(one, vm.VM{Name: "web", State: vm.Stopped})
	if got, err := l.DeleteTemplate(ctx, two.ID[:12]); err != nil || got.ID != two.ID || got.Key.Image != "two" {
		t.Errorf("DeleteTemplate = %+v, %v", got, err)
	}
	l.wantTemplates("after deleting one", one)
	if _, err := l.DeleteTemplate(ctx, two.ID); errkind.Of(err) != errkind.NotFound {
		t.Errorf("DeleteTemplate again = %v", err)
	}
	if err := l.store.Delete(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DeleteTemplate(ctx, one.ID); err != nil {
		t.Errorf("DeleteTemplate without its machine = %v", err)
	}
	l.wantTemplates("after deleting both")
}

func TestTemplateByPrefix(t *testing.T) {
	l := newLife(t)
	// Of 17 ids two begin alike.
	byDigit := make(map[byte][]string)
	for i := range 17 {
		id := l.template("i" + strings.Repeat("x", i)).ID
		byDigit[id[0]] = append(byDigit[id[0]], id)
	}
	for digit, ids := range byDigit {
		got, err := l.Template(context.Background(), string(digit))
		switch {
		case len(ids) == 1 && (err != nil || got.ID != ids[0]):
			t.Errorf("Template(%c) = %s, %v, want %s", digit, got.ID, err, ids[0])
		case len(ids) > 1 && (errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), "begins the ids of")):
			t.Errorf("Template(%c), which begins %d, = %s, %v", digit, len(ids), got.ID, err)
		}
		for _, id := range ids {
			if got, err := l.Template(context.Background(), id); err != nil || got.ID != id {
				t.Errorf("Template(%s) = %s, %v", id, got.ID, err)
			}
		}
	}
	for ref, want := range map[string]errkind.Kind{"": errkind.Usage, "x": errkind.NotFound, "../../../x": errkind.NotFound, strings.Repeat("0", 33): errkind.NotFound} {
		if got, err := l.Template(context.Background(), ref); errkind.Of(err) != want {
			t.Errorf("Template(%q) = %+v, %v, want %s", ref, got, err, want)
		}
	}
}

// One that is found damaged is used no more, and goes when it is pruned.
func TestVerifyTemplate(t *testing.T) {
	l := newLife(t)
	ctx := context.Background()
	good, bad := l.template("good"), l.template("bad")
	overwrite(t, bad.Root())
	if _, err := l.VerifyTemplate(ctx, good.ID); err != nil {
		t.Errorf("VerifyTemplate of a good one = %v", err)
	}
	if got, err := l.Template(ctx, bad.ID); err != nil || got.Damaged != "" {
		t.Errorf("before it is read through: %+v, %v", got, err)
	}
	for range 2 {
		if _, err := l.VerifyTemplate(ctx, bad.ID); !errors.Is(err, template.ErrDamaged) || errkind.Of(err) != errkind.Internal {
			t.Errorf("VerifyTemplate of a damaged one = %v", err)
		}
		got, err := l.Template(ctx, bad.ID)
		if want := bad.Root() + " is damaged: its content is not what it was"; err != nil || got.Damaged != want {
			t.Errorf("after it was read through: %q, %v, want %q", got.Damaged, err, want)
		}
	}
	if _, err := l.VerifyTemplate(ctx, "x"); errkind.Of(err) != errkind.NotFound {
		t.Errorf("VerifyTemplate of none = %v", err)
	}
	gone, err := l.PruneTemplates(ctx, template.PruneOptions{})
	if err != nil || len(gone) != 1 || gone[0].ID != bad.ID {
		t.Errorf("PruneTemplates = %v, %v", gone, err)
	}
	l.wantTemplates("after pruning", good)
}

// What would go is what goes, and nothing of what the caller keeps does.
func TestPruneTemplates(t *testing.T) {
	l := newLife(t)
	ctx := context.Background()
	kept, used, free := l.template("kept"), l.template("used"), l.template("free")
	l.onTemplate(used, vm.VM{Name: "web", State: vm.Stopped})
	keep := map[string]bool{kept.ID: true}
	o := template.PruneOptions{Keep: keep, UnusedFor: 1}
	would, err := l.PrunableTemplates(ctx, o)
	if err != nil || len(would) != 1 || would[0].ID != free.ID {
		t.Errorf("PrunableTemplates = %v, %v", would, err)
	}
	l.wantTemplates("after asking", kept, used, free)
	gone, err := l.PruneTemplates(ctx, o)
	if err != nil || len(gone) != 1 || gone[0].ID != free.ID {
		t.Errorf("PruneTemplates = %v, %v", gone, err)
	}
	l.wantTemplates("after pruning", kept, used)
	if len(keep) != 1 {
		t.Errorf("the caller's map was changed: %v", keep)
	}
}

// The daemon keeps to the configuration while there is room, and makes room
// when there is little.
func TestPruneTemplatesAsConfigured(t *testing.T) {
	for name, tt := range map[string]struct {
		unused     time.Duration
		max, spare int64
		stay       bool
	}{
		"room":       {30 * 24 * time.Hour, 0, 50 << 30, true},
		"no limits":  {0, 0, 50 << 30, true},
		"unused":     {1, 0, 50 << 30, false},
		"too large":  {0, 1, 50 << 30, false},
		"just room":  {0, 0, 2 << 30, true},
		"little":     {0, 0, 2<<30 - 1, false},
		"large room": {0, 1 << 40, 50 << 30, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			conf := daemontest.Config()
			conf.TemplateUnused, conf.TemplateMax = config.Dur(tt.unused), config.Size(tt.max)
			lib, err := templatefs.Open(l.paths.Templates())
			if err != nil {
				t.Fatal(err)
			}
			m := lifecycle.New(lifecycle.Deps{
				Records: l.store, Templates: lib, Host: &l.w.Host, Paths: l.paths, Config: conf, Log: slog.New(slog.DiscardHandler),
			})
			defer m.Close()
			free, used := l.template("free"), l.template("used")
			l.onTemplate(used, vm.VM{Name: "web", State: vm.Stopped})
			l.w.Host.SetSpare(tt.spare)
			m.PruneTemplatesAsConfigured(context.Background())
			if tt.stay {
				l.wantTemplates("with "+name, free, used)
			} else {
				l.wantTemplates("with "+name, used)
			}
		})
	}
}
